"""Signing up, logging in, and what is one's own."""

from typing import ClassVar, Final, cast

from django.contrib import auth
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access import limits, people
from wallets.access.authentication import Anybody
from wallets.access.throttles import AttemptThrottle, CallerThrottle
from wallets.api.endpoint import Endpoint
from wallets.api.openapi import Declaration
from wallets.contract.parsing import read
from wallets.contract.request_schemas import Credentials, PersonToSignUp
from wallets.contract.responses import OwnWalletBody, PersonBody, operation_body, person_body, wallet_body
from wallets.database_retry import retry_until_deadline
from wallets.models import Operation, User
from wallets.problems import EmailTaken, InvalidCredentials, WalletNotFound

NEWEST_OPERATIONS: Final = 20  # operations that come with one's wallet


class SignInEndpoint(Endpoint):
    """What a client sends to become known. It is counted before its body is read."""

    authentication_classes = [Anybody]
    max_body_bytes = 16_384  # a password of 1,024 characters, each escaped, is 12 KiB
    max_values = 20
    throttle_classes = [CallerThrottle, AttemptThrottle]
    limit: ClassVar[str]


class SignUp(SignInEndpoint):
    """/signup"""

    limit = limits.SIGNUP

    @Declaration(
        "signup_create",
        is_public=True,
        request=PersonToSignUp,
        examples={
            "a person": {"name": "Anna", "email": "anna@example.com", "password": "correct horse battery"}
        },
        status=201,
        response=PersonBody,
        refusals=[EmailTaken],
    )
    def post(self, request: Request) -> Response:
        """Sign up.

        Opens a wallet in the service's default currency and begins a session: the cookies `sessionid` and
        `csrftoken`, whose value every further request that changes something repeats in `X-CSRFToken`.
        """
        asked = read(request, PersonToSignUp)
        user = people.sign_up(asked.name, asked.email, asked.password)
        people.begin_session(request._request, user)
        return Response(_person(user), status=201, headers={"Location": "/api/v1/me"})


class LogIn(SignInEndpoint):
    """/login"""

    limit = limits.LOGIN

    @Declaration(
        "login_create",
        is_public=True,
        request=Credentials,
        examples={"a person": {"email": "anna@example.com", "password": "correct horse battery"}},
        response=PersonBody,
        refusals=[InvalidCredentials],
    )
    def post(self, request: Request) -> Response:
        """Log in.

        Begins a session, as signing up does. An operator's name may stand for the e-mail address.
        """
        asked = read(request, Credentials)
        return Response(_person(people.log_in(request._request, asked.email, asked.password)))


class LogOut(Endpoint):
    """/logout"""

    @Declaration("logout_create", no_content="It has ended.")
    def post(self, request: Request) -> Response:
        """Log out.

        Ends the session.
        """
        auth.logout(request._request)
        return Response(status=204)


class Me(Endpoint):
    """/me"""

    @Declaration("me_retrieve", response=PersonBody)
    def get(self, request: Request) -> Response:
        """Who is logged in.

        The person or operator whose session this is.
        """
        return Response(_person(_user(request)))


class MyWallet(Endpoint):
    """/me/wallet"""

    @Declaration("me_wallet_retrieve", response=OwnWalletBody, refusals=[WalletNotFound])
    def get(self, request: Request) -> Response:
        """One's own wallet with its newest operations.

        The first wallet that one had. The operations are those that the wallet's balance knows of.
        """
        wallet = people.main_wallet(_user(request))
        if wallet is None:
            raise WalletNotFound
        # None that the wallet, read before, does not know of: each moves its updated_at.
        history = Operation.objects.of_wallet(wallet.id).filter(created_at__lte=wallet.updated_at)
        newest = history.that_move_money().order_by("-created_at", "-id")[:NEWEST_OPERATIONS]
        operations = retry_until_deadline(lambda: list(newest))
        listed = [operation_body(operation, wallet.currency) for operation in operations]
        return Response({"wallet": wallet_body(wallet), "operations": listed})


def _user(request: Request) -> User:
    """Who is logged in: the scope `person` has seen to it that somebody is."""
    return cast(User, request.user)


def _person(user: User) -> dict[str, object]:
    return person_body(user, people.main_wallet(user))
