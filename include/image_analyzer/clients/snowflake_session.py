"""Sessions of the Snowflake connector: how they are opened, and the connector's errors named by what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.exc import TimeoutError as NoSessionError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from image_analyzer.errors import ConfigurationError, FatalError, RetryableError

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection
    from snowflake.connector.cursor import SnowflakeCursor

Connect = Callable[[], "SnowflakeConnection"]
# Seconds that the connector tries again; after that the task ends and is tried later.
TIMEOUTS = {"login_timeout": 30, "network_timeout": 300}
# A face is used by people who wait.
TIMEOUTS_OF_FACES = {"login_timeout": 10, "network_timeout": 20}
_RECYCLE_S = 1_800  # a session of Snowflake lives four hours
# A statement that hangs is ended by the server, whichever way the session was opened.
SESSION_PARAMETERS = {"QUERY_TAG": "image-analyzer", "TIMEZONE": "UTC", "STATEMENT_TIMEOUT_IN_SECONDS": 1800}
# Connector's number -> not worth a retry: signing in, a missing object, a missing privilege, SQL that does not compile.
_FATAL_ERRNOS = frozenset({390100, 390144, 390114, 390422, 2003, 2043, 3001, 1003, 904})


@contextmanager
def open_session(connect: Connect) -> Iterator[SnowflakeCursor]:
    """Open a session for some statements and close it; what was not committed is rolled back.

    Raises:
        FatalError, RetryableError: As the connector's errors are mapped.
    """
    with _mapped_errors():
        connection = connect()
        try:
            yield connection.cursor()
        except BaseException:
            if isinstance(connection, PoolProxiedConnection):
                connection.invalidate()  # whatever it has begun: nobody else gets it
            raise
        finally:
            connection.close()


def pooled(connect: Connect, size: int) -> Connect:
    """Return a `connect` that keeps sessions open for the next caller: signing in takes longer than most statements.

    Args:
        size: So many at most; who finds none free waits.
    """
    pool = QueuePool(cast("Any", connect), pool_size=size, max_overflow=0, recycle=_RECYCLE_S, reset_on_return=None)
    return cast("Connect", pool.connect)


def read_rows(cursor: SnowflakeCursor) -> Iterator[dict[str, Any]]:
    """Yield the rows of a statement by column name."""
    names = [column.name for column in cursor.description]
    for values in cursor:
        yield dict(zip(names, values, strict=True))


def first_row(cursor: SnowflakeCursor) -> tuple[Any, ...]:
    """Return the first row of a statement; empty if there is none."""
    row = cursor.fetchone()
    return tuple(row) if row else ()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Turn the connector's errors into ours; the message is the server's, without statement or binds."""
    from snowflake.connector import errors

    try:
        yield
    except (errors.ForbiddenError, errors.BadGatewayError, errors.ServiceUnavailableError) as error:
        raise RetryableError(f"Snowflake: {error.msg}") from None
    except errors.ProgrammingError as error:
        if error.errno in _FATAL_ERRNOS:
            raise FatalError(f"Snowflake ({error.errno}): {error.msg}. Has `image-analyzer init` been run?") from None
        raise RetryableError(f"Snowflake ({error.errno}): {error.msg}") from None
    except errors.DatabaseError as error:
        if error.errno in _FATAL_ERRNOS:
            raise FatalError(f"Snowflake ({error.errno}): {error.msg}. Check the SNOWFLAKE settings.") from None
        raise RetryableError(f"Snowflake ({error.errno}): {error.msg}") from None
    except errors.Error as error:
        raise RetryableError(f"Snowflake: {error.msg}") from None
    except NoSessionError:
        raise RetryableError("Snowflake: all sessions of this process are busy") from None


def connect_arguments(
    *,
    account: str,
    user: str,
    password: str = "",
    private_key_file: str = "",
    private_key_passphrase: str = "",
    authenticator: str = "",
    token: str = "",
    role: str = "",
    warehouse: str = "",
    database: str = "",
    schema: str = "",
    host: str = "",
    port: int = 443,
) -> dict[str, Any]:
    """Return the connector's arguments for password, key pair or OAuth sign-in.

    Raises:
        ConfigurationError: None of the three is complete.
    """
    if not (password or private_key_file or token):
        raise ConfigurationError(
            "Snowflake sign-in is not set: give SNOWFLAKE_PASSWORD, SNOWFLAKE_PRIVATE_KEY_FILE, or "
            "SNOWFLAKE_AUTHENTICATOR=oauth with SNOWFLAKE_TOKEN"
        )
    given = {
        "account": account,
        "user": user,
        "password": password,
        "private_key_file": private_key_file,
        "private_key_file_pwd": private_key_passphrase,
        "authenticator": authenticator,
        "token": token,
        "role": role,
        "warehouse": warehouse,
        "database": database,
        "schema": schema,
    }
    arguments: dict[str, Any] = {name: value for name, value in given.items() if value}
    arguments |= {"session_parameters": dict(SESSION_PARAMETERS), **TIMEOUTS}
    if host:
        # An emulator has a certificate of its own, which no authority can be asked about.
        arguments |= {"host": host, "port": port, "disable_ocsp_checks": True}
    return arguments
