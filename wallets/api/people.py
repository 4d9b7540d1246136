"""Views for users: sign-up, login, and their own account and wallet."""

from typing import ClassVar, Final, cast

from django.contrib import auth
from rest_framework.request import Request
from rest_framework.response import Response

from wallets.access import limits, people
from wallets.access.authentication import NoAuthentication
from wallets.access.throttles import AttemptThrottle, CallerThrottle
from wallets.api.endpoint import Endpoint
from wallets.api.openapi import Declaration
from wallets.contract.parsing import read
from wallets.contract.request_schemas import Credentials, PersonToSignUp
from wallets.contract.responses import OwnWalletBody, PersonBody, operation_body, person_body, wallet_body
from wallets.database_retry import retry_until_deadline
from wallets.models import Operation, User
from wallets.problems import EmailTaken, InvalidCredentials, WalletNotFound

NEWEST_OPERATIONS: Final = 20  # in the response of /me/wallet


class SignInEndpoint(Endpoint):
    """A sign-up or a login. The attempt is counted before the body is read."""

    authentication_classes = [NoAuthentication]
    max_body_bytes = 16_384  # a password of 1,024 characters, each escaped, is 12 KiB
    max_values = 20
    throttle_classes = [CallerThrottle, AttemptThrottle]
    limit: ClassVar[str]


class SignUp(SignInEndpoint):
    """/signup"""

    limit = limits.SIGNUP

    @Declaration(
        "signUp",
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

        Opens a wallet in the service's default currency and starts a session with the cookies `sessionid` and
        `csrftoken`. Every later request that changes something must repeat the value of `csrftoken` in
        `X-CSRFToken`.
        """
        asked = read(request, PersonToSignUp)
        user = people.sign_up(asked.name, asked.email, asked.password)
        people.begin_session(request._request, user)
        return Response(_person(user), status=201, headers={"Location": "/api/v1/me"})


class LogIn(SignInEndpoint):
    """/login"""

    limit = limits.LOGIN

    @Declaration(
        "logIn",
        is_public=True,
        request=Credentials,
        examples={"a person": {"email": "anna@example.com", "password": "correct horse battery"}},
        response=PersonBody,
        refusals=[InvalidCredentials],
    )
    def post(self, request: Request) -> Response:
        """Log in.

        Starts a session, as sign-up does. An operator may send the user name instead of an e-mail address.
        """
        asked = read(request, Credentials)
        return Response(_person(people.log_in(request._request, asked.email, asked.password)))


class LogOut(Endpoint):
    """/logout"""

    @Declaration("logOut", no_content="It has ended.")
    def post(self, request: Request) -> Response:
        """Log out.

        Ends the session.
        """
        auth.logout(request._request)
        return Response(status=204)


class Me(Endpoint):
    """/me"""

    @Declaration("getMe", response=PersonBody)
    def get(self, request: Request) -> Response:
        """Read the account of the session.

        The user or operator who is logged in.
        """
        return Response(_person(_user(request)))


class MyWallet(Endpoint):
    """/me/wallet"""

    @Declaration("getMyWallet", response=OwnWalletBody, refusals=[WalletNotFound])
    def get(self, request: Request) -> Response:
        """Read the user's wallet with its newest operations.

        The first wallet of the user. The balance includes exactly these operations and the earlier ones.
        """
        wallet = people.main_wallet(_user(request))
        if wallet is None:
            raise WalletNotFound
        # Only operations that the wallet, which was read before, includes: each one advances updated_at.
        history = Operation.objects.of_wallet(wallet.id).filter(created_at__lte=wallet.updated_at)
        newest = history.that_move_money().order_by("-created_at", "-id")[:NEWEST_OPERATIONS]
        operations = retry_until_deadline(lambda: list(newest))
        listed = [operation_body(operation, wallet.currency) for operation in operations]
        return Response({"wallet": wallet_body(wallet), "operations": listed})


def _user(request: Request) -> User:
    """Return the user of the session. The scope `person` guarantees that there is one."""
    return cast(User, request.user)


def _person(user: User) -> dict[str, object]:
    return person_body(user, people.main_wallet(user))
