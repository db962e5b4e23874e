"""What a store's refusal means, in one sentence that says what is wrong and what to do.

MLflow hands on what its server, a database driver or an S3 client has said, often behind several hundred characters of
addresses. The sentences here are told in its place; what none of them fits is told as it came.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from medgen.errors import DataError
from medgen.runs.plain_text import printable

# Pattern in what was said → what is wrong, and what to do. The first that fits is told; groups are filled in.
_SENTENCES: tuple[tuple[str, str], ...] = (
    (
        r"No module named '(?:psycopg|psycopg2)'",
        "the driver of PostgreSQL is not installed; install medgen[postgresql]",
    ),
    (r"No module named 'boto(?:3|core)'", "the client of S3 is not installed; install medgen[s3]"),
    (
        r"No module named '(\w+)'",
        "the module {0} that this kind of store needs is not installed; install it, or choose another store",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED\W*certificate verify failed: (?:Hostname|IP address) mismatch",
        "the server's certificate is for another name; use the name in the certificate in MLFLOW_TRACKING_URI",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the server's certificate is not trusted here; set MLFLOW_TRACKING_SERVER_CERT_PATH to the PEM file of the "
        "authority that signed it",
    ),
    (
        r"Could not find a suitable TLS CA certificate bundle",
        "the file that MLFLOW_TRACKING_SERVER_CERT_PATH names is not there; set it to the PEM file of the authority",
    ),
    (
        r"WRONG_VERSION_NUMBER|record layer failure",
        "the server does not speak TLS; write http:// in place of https:// in MLFLOW_TRACKING_URI",
    ),
    (
        r"(?:error code 401|UNAUTHENTICATED)",
        "user name and password are {account}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
    (
        r"(?:error code 403|PERMISSION_DENIED)",
        "this account may not write to the experiment; ask for EDIT on it, or name another with MLFLOW_EXPERIMENT_NAME",
    ),
    (
        r"password authentication failed for user|no password supplied|fe_sendauth",
        "the database does not accept user name and password; correct them in MLFLOW_TRACKING_URI",
    ),
    (r'database "([^"]*)" does not exist', "there is no database {0}; make it (createdb {0}) or name another"),
    (r'role "([^"]*)" does not exist', "the database knows no user {0}; correct MLFLOW_TRACKING_URI"),
    (
        r"too many connections|too many clients|remaining connection slots",
        "the database takes no more connections; wait, or raise max_connections or the user's limit",
    ),
    (
        r"InsufficientPrivilege|permission denied for|ReadOnlySqlTransaction",
        "this database user may not write; grant it the rights on MLflow's tables",
    ),
    (
        r"UndefinedTable|UndefinedColumn|no such table|no such column",
        "the database lacks a table or column that MLflow needs; compare the versions of MLflow here and there, and "
        "run mlflow db upgrade where the database is the older one",
    ),
    (
        r"DiskFull|No space left on device|database or disk is full|[Qq]uota exceeded|could not extend file"
        r"|\b507\b|XStorageFull|QuotaExceeded|InsufficientCapacity",
        "the store is full; make room there",
    ),
    (
        r"readonly database|Read-only file system",
        "the store may only be read; let this user write to it, or name another in MLFLOW_TRACKING_URI",
    ),
    (
        r"When an mlflow-artifacts URI was supplied, the tracking URI must be",
        "this experiment keeps its files behind an MLflow server; give the server's address in MLFLOW_TRACKING_URI, or "
        "name another experiment with MLFLOW_EXPERIMENT_NAME",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Unable to locate credentials|InvalidToken",
        "the store of files does not accept the keys; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and what they "
        "may do",
    ),
    (r"NoSuchBucket", "the bucket for files is not there; make it, or correct where the experiment keeps its files"),
    (
        r"mlflow-artifacts/artifacts/.*(?:too many 5\d\d error|error code 5\d\d)",
        "the server could not put a file where it keeps them; its log says why (a full or refusing bucket, most often)",
    ),
    (
        r"too many 503 error|error code 503",
        "the server cannot use its database (503); its log says why (a full disk or a database that is down, most "
        "often)",
    ),
    (r"too many 5\d\d error|error code 5\d\d", "the server met an error of its own; its log says which"),
    (
        r"Name or service not known|failed to resolve host|NameResolutionError|nodename nor servname",
        "there is no such host; correct the name in MLFLOW_TRACKING_URI",
    ),
    (
        r"Connection refused|Could not connect to the endpoint",
        "nobody answers there; start the server, or correct the address in MLFLOW_TRACKING_URI",
    ),
    (r"timed out|timeout expired|ConnectTimeout|ReadTimeout", "no answer in time; look whether the server is up"),
)
# Faults of the whole store that a database's driver reports as if the entry were at fault.
_WHOLE_STORE = re.compile(
    r"InsufficientPrivilege|permission denied for|ReadOnlySqlTransaction|UndefinedTable|UndefinedColumn|no such table"
    r"|no such column|readonly database|DiskFull|No space left on device|database or disk is full"
)


def sentence(error: BaseException) -> str:
    """One line about what a store has answered, without passwords.

    >>> sentence(OSError('connection to server failed: FATAL:  password authentication failed for user "ann"'))
    'the database does not accept user name and password; correct them in MLFLOW_TRACKING_URI'
    >>> sentence(ValueError("no idea"))
    'ValueError: no idea'
    """
    if isinstance(error, DataError):
        return str(error)
    said = "\n".join(str(item) for item in _chain(error))
    for pattern, words in _SENTENCES:
        if found := re.search(pattern, said):
            account = "not accepted" if os.environ.get("MLFLOW_TRACKING_USERNAME") else "asked for"
            return words.format(*found.groups(), account=account)
    # Addresses in messages may hold a password.
    lines = re.sub(r"//[^/\s@]*@", "//", str(error)).strip().splitlines() or [""]
    return f"{error.__class__.__name__}: {lines[0][:200]}"


def about_the_store(error: BaseException) -> bool:
    """Whether a refusal is the whole store's, so that an entry that met it must be sent again.

    MLflow answers ``BAD_REQUEST`` also when a database user has lost the right to write.

    >>> about_the_store(OSError("(psycopg.errors.InsufficientPrivilege) permission denied for table metrics"))
    True
    >>> about_the_store(OSError("Metric name 'a#' is not valid"))
    False
    """
    return any(_WHOLE_STORE.search(str(item)) for item in _chain(error))


def deleted(name: str, number: str) -> DataError:
    """The error for an experiment in MLflow's waste bin."""
    return DataError(
        f"experiment {name} has been deleted; bring it back (mlflow experiments restore -x {number}), or name another "
        "with MLFLOW_EXPERIMENT_NAME"
    )


def unsent(uri: str, error: BaseException) -> str:
    """Which store, and what it has answered: the beginning of a message."""
    return f"MLflow store {printable(uri)}: {sentence(error)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    found: BaseException | None = error
    for _ in range(8):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__
