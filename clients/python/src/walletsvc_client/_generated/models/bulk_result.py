from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.operation import Operation
    from ..models.problem import Problem
    from ..models.transfer import Transfer


T = TypeVar("T", bound="BulkResult")


@_attrs_define
class BulkResult:
    """The response that the item would get as a single request.

    Attributes:
        status (int): 201, 202, or the problem's status.
        replayed (bool):
        operation (None | Operation | Unset):
        transfer (None | Transfer | Unset):
        problem (None | Problem | Unset):
    """

    status: int
    replayed: bool
    operation: None | Operation | Unset = UNSET
    transfer: None | Transfer | Unset = UNSET
    problem: None | Problem | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.operation import Operation  # noqa: PLC0415
        from ..models.problem import Problem  # noqa: PLC0415
        from ..models.transfer import Transfer  # noqa: PLC0415

        status = self.status

        replayed = self.replayed

        operation: dict[str, Any] | None | Unset
        if isinstance(self.operation, Unset):
            operation = UNSET
        elif isinstance(self.operation, Operation):
            operation = self.operation.to_dict()
        else:
            operation = self.operation

        transfer: dict[str, Any] | None | Unset
        if isinstance(self.transfer, Unset):
            transfer = UNSET
        elif isinstance(self.transfer, Transfer):
            transfer = self.transfer.to_dict()
        else:
            transfer = self.transfer

        problem: dict[str, Any] | None | Unset
        if isinstance(self.problem, Unset):
            problem = UNSET
        elif isinstance(self.problem, Problem):
            problem = self.problem.to_dict()
        else:
            problem = self.problem

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "replayed": replayed,
            }
        )
        if operation is not UNSET:
            field_dict["operation"] = operation
        if transfer is not UNSET:
            field_dict["transfer"] = transfer
        if problem is not UNSET:
            field_dict["problem"] = problem

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.operation import Operation  # noqa: PLC0415
        from ..models.problem import Problem  # noqa: PLC0415
        from ..models.transfer import Transfer  # noqa: PLC0415

        d = dict(src_dict)
        status = d.pop("status")

        replayed = d.pop("replayed")

        def _parse_operation(data: object) -> None | Operation | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                operation_type_0 = Operation.from_dict(data)

                return operation_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Operation | Unset, data)

        operation = _parse_operation(d.pop("operation", UNSET))

        def _parse_transfer(data: object) -> None | Transfer | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                transfer_type_0 = Transfer.from_dict(data)

                return transfer_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Transfer | Unset, data)

        transfer = _parse_transfer(d.pop("transfer", UNSET))

        def _parse_problem(data: object) -> None | Problem | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                problem_type_0 = Problem.from_dict(data)

                return problem_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Problem | Unset, data)

        problem = _parse_problem(d.pop("problem", UNSET))

        bulk_result = cls(
            status=status,
            replayed=replayed,
            operation=operation,
            transfer=transfer,
            problem=problem,
        )

        bulk_result.additional_properties = d
        return bulk_result

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
