//! Every refusal and failure: gRPC status, reason, and what to do about it, in English and Vietnamese. Only this file
//! assigns a status and a fault to a reason; `docs/statuses.md` is printed from it.

use crate::contract::operation::Malformed;
use crate::contract::validate::Violation;
use http::StatusCode;
use std::time::Duration;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every response of the gateway's own.
pub const DOMAIN: &str = "ndxp-gateway";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $code:ident, $owner:ident, $en:literal, $vi:literal;)*) => {
        /// The reason that an exchange did not succeed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// Returns the reason's text in `ErrorInfo` and in the log.
            pub fn as_str(self) -> &'static str { match self { $(Reason::$name => $text,)* } }

            /// Returns the gRPC status code.
            pub fn code(self) -> Code { match self { $(Reason::$name => Code::$code,)* } }

            /// Returns whose fault it is by the reason alone. For failures at or on the way to a source,
            /// `drivers::SourceError::owner` is more precise.
            pub fn fault(self) -> FaultOwner { match self { $(Reason::$name => FaultOwner::$owner,)* } }

            /// Returns what happened and what to do, in English.
            pub fn english(self) -> &'static str { match self { $(Reason::$name => $en,)* } }

            /// The same in Vietnamese.
            pub fn vietnamese(self) -> &'static str { match self { $(Reason::$name => $vi,)* } }
        }
    };
}

reasons! {
    /// No `authorization` metadata.
    TokenMissing, "TOKEN_MISSING", Unauthenticated, Caller, "No access token: send `authorization: Bearer …`.", "Thiếu mã truy cập: gửi `authorization: Bearer …`.";
    /// Not a JWT in a Bearer header, or several of them.
    TokenMalformed, "TOKEN_MALFORMED", Unauthenticated, Caller, "The access token is not one well-formed Bearer JWT.", "Mã truy cập không đúng định dạng Bearer JWT.";
    /// Signature, key, algorithm, type, issuer or audience are wrong.
    TokenInvalid, "TOKEN_INVALID", Unauthenticated, Caller, "The access token is not one of this gateway's.", "Mã truy cập không do cổng này cấp.";
    /// `exp` is past.
    TokenExpired, "TOKEN_EXPIRED", Unauthenticated, Caller, "The access token has expired: get a new one.", "Mã truy cập đã hết hạn: hãy lấy mã mới.";
    /// `nbf` or `iat` is in the future.
    TokenNotYetValid, "TOKEN_NOT_YET_VALID", Unauthenticated, Caller, "The access token is not valid yet: check the clocks.", "Mã truy cập chưa có hiệu lực: kiểm tra đồng hồ.";
    /// The token was revoked.
    TokenRevoked, "TOKEN_REVOKED", Unauthenticated, Caller, "The access token has been revoked.", "Mã truy cập đã bị thu hồi.";
    /// The client is suspended.
    ClientSuspended, "CLIENT_SUSPENDED", Unauthenticated, Caller, "This client is suspended: ask the administrator.", "Hệ thống này đang bị tạm dừng: liên hệ quản trị viên.";
    /// The certificate names no registered client or person.
    ClientUnknown, "CLIENT_UNKNOWN", Unauthenticated, Caller, "The client certificate names no registered client.", "Chứng thư số không thuộc hệ thống nào đã đăng ký.";
    /// Of a call on the HTTPS port, where a certificate is not asked of everybody: it came without one.
    CertificateRequired, "CERTIFICATE_REQUIRED", Unauthenticated, Caller, "Show a client certificate: every call needs one.", "Cần xuất trình chứng thư số của hệ thống cho mọi lượt gọi.";
    /// The certificate names more than one client or person.
    CertificateAmbiguous, "CERTIFICATE_AMBIGUOUS", Unauthenticated, Caller, "The certificate names more than one registered client or person: use one that names only one.", "Chứng thư số nêu tên nhiều hơn một hệ thống hoặc cá nhân đã đăng ký: dùng chứng thư chỉ nêu một tên.";
    /// The token belongs to another certificate or client.
    TokenNotBound, "TOKEN_NOT_BOUND_TO_CERTIFICATE", Unauthenticated, Caller, "The access token belongs to another certificate.", "Mã truy cập thuộc về chứng thư số khác.";
    /// No grant in force for the operation's scope, or the token lacks it.
    ScopeNotGranted, "SCOPE_NOT_GRANTED", PermissionDenied, Caller, "This client has no grant in force for this operation.", "Hệ thống chưa được cấp quyền cho dịch vụ này.";
    /// The operation needs `ndxp-purpose`.
    PurposeRequired, "PURPOSE_REQUIRED", PermissionDenied, Caller, "State the purpose: metadata `ndxp-purpose` with a procedure code or dossier number.", "Cần nêu mục đích: `ndxp-purpose` là mã thủ tục hoặc mã hồ sơ.";
    /// The purpose is not in the grant.
    PurposeNotGranted, "PURPOSE_NOT_GRANTED", PermissionDenied, Caller, "The grant does not cover this purpose.", "Quyền được cấp không bao gồm mục đích này.";
    /// The operation needs `ndxp-official`.
    OfficialRequired, "OFFICIAL_REQUIRED", PermissionDenied, Caller, "Name the acting official: metadata `ndxp-official` with the official's id.", "Cần nêu cán bộ thực hiện: `ndxp-official`.";
    /// More calls a second than granted.
    RateLimited, "RATE_LIMITED", ResourceExhausted, Caller, "Too many calls, or streams at once: wait as RetryInfo says.", "Quá nhiều lượt gọi, hoặc quá nhiều luồng cùng lúc: chờ theo RetryInfo.";
    /// More health watches of one certificate than permitted.
    TooManyWatches, "TOO_MANY_WATCHES", ResourceExhausted, Caller, "Too many health watches of this certificate are open: end one first.", "Quá nhiều luồng theo dõi trạng thái đang mở với chứng thư số này: hãy đóng bớt trước.";
    /// The day's quota is used up.
    QuotaExceeded, "QUOTA_EXCEEDED", ResourceExhausted, Caller, "The day's quota is used up.", "Đã dùng hết hạn mức trong ngày.";
    /// The request violates its contract.
    FieldInvalid, "FIELD_INVALID", InvalidArgument, Caller, "The request violates its contract: see the field violations.", "Dữ liệu yêu cầu không hợp lệ: xem chi tiết từng trường.";
    /// The request is not a gRPC message of the contract.
    RequestMalformed, "REQUEST_MALFORMED", InvalidArgument, Caller, "The request is not well-formed: see the message.", "Yêu cầu không đúng định dạng: xem thông báo.";
    /// A message is over the limit.
    MessageTooLarge, "MESSAGE_TOO_LARGE", ResourceExhausted, Caller, "The message is larger than this gateway accepts.", "Thông điệp vượt quá kích thước cho phép.";
    /// The metadata is over the limit.
    MetadataTooLarge, "METADATA_TOO_LARGE", ResourceExhausted, Caller, "The metadata is larger than this gateway accepts (16 kB).", "Siêu dữ liệu vượt quá kích thước cho phép (16 kB).";
    /// Compressed messages are not accepted.
    EncodingUnsupported, "ENCODING_UNSUPPORTED", Unimplemented, Caller, "Compressed messages are not accepted: send them as they are (identity).", "Không nhận thông điệp nén: gửi nguyên dạng (identity).";
    /// A message is marked as compressed, and `grpc-encoding` names no compression.
    CompressionFlagInvalid, "COMPRESSION_FLAG_INVALID", Internal, Caller, "The message is marked as compressed, but grpc-encoding names no compression.", "Thông điệp được đánh dấu là nén, nhưng grpc-encoding không nêu cách nén.";
    /// The request did not arrive in time.
    RequestTimeout, "REQUEST_TIMEOUT", DeadlineExceeded, Caller, "The request did not arrive in time: send it without a pause.", "Yêu cầu không đến kịp thời gian: hãy gửi liền mạch.";
    /// Not gRPC over HTTP/2.
    ProtocolUnsupported, "PROTOCOL_UNSUPPORTED", Unimplemented, Caller, "The request is not a call that this port serves.", "Yêu cầu không phải là lời gọi mà cổng này phục vụ.";
    /// The gateway serves no such method.
    OperationUnknown, "OPERATION_UNKNOWN", Unimplemented, Caller, "No contract has this operation.", "Không có dịch vụ này.";
    /// The source has no such record.
    RecordNotFound, "RECORD_NOT_FOUND", NotFound, Caller, "The source has no such record.", "Nguồn dữ liệu không có bản ghi này.";
    /// The source rejected the request.
    SourceRejected, "SOURCE_REJECTED", InvalidArgument, Caller, "The source rejected the request: see its code.", "Nguồn dữ liệu từ chối yêu cầu: xem mã lỗi.";
    /// The record exists already, by the contract's reading of the source's response.
    RecordExists, "RECORD_EXISTS", AlreadyExists, Caller, "The source has this record already.", "Nguồn dữ liệu đã có bản ghi này.";
    /// The source reports a failure by a code.
    SourceFailed, "SOURCE_FAILED", Internal, Source, "The source reports a failure: see its code.", "Nguồn dữ liệu báo lỗi: xem mã lỗi.";
    /// The result is not ready at the source yet.
    SourceNotReady, "SOURCE_NOT_READY", FailedPrecondition, Source, "The result is not ready at the source yet: call again later.", "Nguồn dữ liệu chưa xử lý xong: hãy hỏi lại sau.";
    /// A concurrent operation at the source conflicted.
    SourceAborted, "SOURCE_ABORTED", Aborted, Caller, "The source aborted the operation because of another one: read again, then repeat the complete operation.", "Nguồn dữ liệu hủy thao tác do xung đột với thao tác khác: đọc lại rồi thực hiện lại từ đầu.";
    /// The source reports that it exists already.
    SourceAlreadyExists, "SOURCE_ALREADY_EXISTS", AlreadyExists, Caller, "The source reports that it already exists.", "Nguồn dữ liệu báo đối tượng đã tồn tại.";
    /// The source's state does not allow the operation.
    SourcePreconditionFailed, "SOURCE_PRECONDITION_FAILED", FailedPrecondition, Caller, "The source's state does not allow this: change the state first; repeating the call does not help.", "Trạng thái ở nguồn dữ liệu không cho phép thao tác này: xử lý trạng thái trước, gọi lại không có tác dụng.";
    /// Beyond what the source has.
    SourceOutOfRange, "SOURCE_OUT_OF_RANGE", OutOfRange, Caller, "The request is out of the source's range.", "Vượt quá phạm vi dữ liệu của nguồn.";
    /// The source limits the rate of requests.
    SourceExhausted, "SOURCE_EXHAUSTED", ResourceExhausted, Source, "The source limits requests: wait as RetryInfo says, or request less.", "Nguồn dữ liệu giới hạn lượng yêu cầu: chờ theo RetryInfo hoặc yêu cầu ít hơn.";
    /// The source cannot be reached, or responds that it is busy.
    SourceUnavailable, "SOURCE_UNAVAILABLE", Unavailable, Source, "The source cannot be reached or is busy.", "Không kết nối được nguồn dữ liệu hoặc nguồn đang bận.";
    /// The breaker is open.
    SourceCircuitOpen, "SOURCE_CIRCUIT_OPEN", Unavailable, Source, "The source has been failing: its circuit breaker is open for a moment.", "Nguồn dữ liệu đang lỗi, tạm ngừng gọi.";
    /// Too many calls are in flight.
    GatewayOverloaded, "GATEWAY_OVERLOADED", Unavailable, Gateway, "Too many calls to this source are in flight.", "Quá nhiều lượt gọi đang chờ nguồn dữ liệu này.";
    /// An operation's contract was changed during the call, and now discloses less.
    ContractChanged, "CONTRACT_CHANGED", Aborted, Gateway, "The operation's contract changed meanwhile: read it again and start over.", "Mô tả dịch vụ đã thay đổi trong khi gọi: đọc lại mô tả và gọi lại từ đầu.";
    /// The gateway ends, and with it an idle stream.
    GatewayEnding, "GATEWAY_ENDING", Unavailable, Gateway, "The gateway ends, perhaps to restart: call again.", "Cổng đang dừng hoặc khởi động lại: hãy gọi lại.";
    /// The exchange log cannot be written or read: no response is sent without an entry.
    ExchangeLogUnavailable, "EXCHANGE_LOG_UNAVAILABLE", Unavailable, Gateway, "The exchange log cannot be written or read; the gateway sends nothing without an entry.", "Không ghi hoặc không đọc được nhật ký; không dữ liệu nào rời cổng.";
    /// A write was sent, and its outcome is not known.
    WriteOutcomeUnknown, "WRITE_OUTCOME_UNKNOWN", Unknown, Gateway, "The write may have been done: do not repeat it; query the source for its state.", "Thao tác ghi có thể đã được thực hiện: không gửi lại, hãy tra cứu trạng thái ở nguồn.";
    /// The source took too long.
    SourceTimeout, "SOURCE_TIMEOUT", DeadlineExceeded, Source, "The source took too long.", "Nguồn dữ liệu trả lời quá chậm.";
    /// The caller's own deadline passed; the outcome at the source is not known.
    CallerDeadline, "CALLER_DEADLINE", DeadlineExceeded, Caller, "Your own deadline passed before the source had the operation's time: set a longer one.", "Đã hết thời hạn do bên gọi đặt: hãy đặt thời hạn dài hơn.";
    /// The source's response does not match its contract.
    SourceProtocolError, "SOURCE_PROTOCOL_ERROR", Internal, Source, "The source's response does not match its contract.", "Phản hồi của nguồn không đúng hợp đồng.";
    /// The source's response has drifted from its contract, and the operation's policy refuses that.
    SourceDrifted, "SOURCE_DRIFTED", Internal, Source, "The source's response has drifted from its contract: notify the operator.", "Phản hồi của nguồn khác với mô tả trong hợp đồng: báo người vận hành.";
    /// The source refused the gateway's credentials.
    SourceCredentialsRefused, "SOURCE_CREDENTIALS_REFUSED", FailedPrecondition, Gateway, "The source refused the gateway's credentials: notify the operator.", "Nguồn từ chối thông tin xác thực của cổng: báo người vận hành.";
    /// The certificate names no member of staff.
    StaffUnknown, "STAFF_UNKNOWN", Unauthenticated, Caller, "The certificate or the identity provider names no member of staff of this gateway.", "Chứng thư số hoặc nhà cung cấp định danh không nêu người quản trị nào của cổng này.";
    /// Signing in at the console by OpenID came to nothing; the entry's `cause` says why.
    SignInFailed, "SIGN_IN_FAILED", Unauthenticated, Caller, "Signing in at the identity provider proved nobody's identity: see the cause in the log.", "Đăng nhập tại nhà cung cấp định danh không xác nhận được danh tính: xem nguyên nhân trong nhật ký.";
    /// A role is missing, or the separation of duties forbids it.
    RoleMissing, "ROLE_MISSING", PermissionDenied, Caller, "This needs another role, or another person.", "Thao tác này cần vai trò khác hoặc người khác.";
    /// The token endpoint gives tokens for client credentials only.
    GrantTypeUnsupported, "GRANT_TYPE_UNSUPPORTED", Unimplemented, Caller, "Only the grant type client_credentials is supported.", "Chỉ nhận grant_type client_credentials.";
    /// No client, grant, token, key or person of this id.
    ObjectUnknown, "OBJECT_UNKNOWN", NotFound, Caller, "There is no object with this id.", "Không có đối tượng với mã này.";
    /// It is there already.
    ObjectExists, "OBJECT_EXISTS", AlreadyExists, Caller, "It is there already.", "Đối tượng đã tồn tại.";
    /// A search for a person covers a period with a missing key.
    PseudonymKeyMissing, "PSEUDONYM_KEY_MISSING", FailedPrecondition, Caller, "The pseudonym key of a period is missing, so requests about a person in that period cannot be found: restore the key, or search outside that period.", "Khóa bí danh của một kỳ không còn nên không thể cho biết trong kỳ đó đã tra cứu gì về một người: khôi phục khóa, hoặc tìm ngoài kỳ đó.";
    /// The object of an approval has changed since the request.
    ChangeOutdated, "CHANGE_OUTDATED", FailedPrecondition, Caller, "The object has changed since the change was requested: request it again.", "Đối tượng đã thay đổi kể từ khi đề nghị: hãy đề nghị lại.";
    /// Too many changes wait for approval.
    ChangesFull, "CHANGES_FULL", ResourceExhausted, Caller, "Too many changes wait for approval: have some approved or rejected first.", "Quá nhiều thay đổi đang chờ phê duyệt: hãy xử lý bớt trước.";
    /// The registry or its keys cannot be used.
    RegistryUnavailable, "REGISTRY_UNAVAILABLE", Unavailable, Gateway, "The registry cannot be used: notify the operator.", "Không dùng được sổ đăng ký: báo người vận hành.";
    /// Too much administrative work is in flight, for this person or in all.
    AdministrationBusy, "ADMINISTRATION_BUSY", ResourceExhausted, Gateway, "Too many administrative calls are in flight: wait for some to end.", "Quá nhiều thao tác quản trị đang chạy: chờ một số thao tác kết thúc.";
    /// The TLS handshake failed: the connection is refused before any call.
    HandshakeFailed, "HANDSHAKE_FAILED", Unauthenticated, Caller, "The TLS handshake failed: no certificate of the province's CA.", "Bắt tay TLS thất bại: không có chứng thư số của CA tỉnh.";
    /// The certificate of an open connection was revoked, or has expired: the connection is closed.
    CertificateRevoked, "CERTIFICATE_REVOKED", Unauthenticated, Caller, "The certificate was revoked or has expired: the connection is closed.", "Chứng thư số đã bị thu hồi hoặc hết hạn: kết nối bị đóng.";
    /// The caller went away.
    Cancelled, "CANCELLED_BY_CALLER", Cancelled, Caller, "The caller cancelled the call.", "Bên gọi đã hủy yêu cầu.";
}

/// The HTTP status of a code, by Connect's table, which is google.rpc's but for a few.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // Nginx's 499: there is none of the registry's.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}

/// The HTTP status of a reason in plain JSON: that of its code, but what is not there is 404 to a client of HTTP.
pub fn plain_http_status(reason: Reason) -> StatusCode {
    match reason {
        Reason::OperationUnknown => StatusCode::NOT_FOUND,
        other => http_status(other.code()),
    }
}

/// Whose fault it is that an exchange did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultOwner {
    /// The caller's: its identity, its rights, its request, or its deadline.
    Caller,
    /// The gateway's own, or that of its configuration and its operator.
    Gateway,
    /// The hub's, or the network's on the way to the source.
    Hub,
    /// The source's.
    Source,
}

impl FaultOwner {
    /// Returns its text in `ErrorInfo`, log entry and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultOwner::Caller => "caller",
            FaultOwner::Gateway => "gateway",
            FaultOwner::Hub => "hub",
            FaultOwner::Source => "source",
        }
    }
}

/// What a call shows about the health of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceHealth {
    /// It responded, even with a refusal.
    Responded,
    /// It failed, or did not respond in the operation's own time: perhaps only at this operation.
    Failed,
    /// It cannot be reached, for any call.
    Unreachable,
    /// Nothing: the caller ended the call, or it ended in the gateway.
    Unknown,
}

impl SourceHealth {
    /// Returns whether it is unhealthy.
    pub fn is_unhealthy(self) -> bool {
        matches!(self, SourceHealth::Failed | SourceHealth::Unreachable)
    }
}

/// A refusal or failure on its way to the caller. Never holds a secret or personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Whose fault it is.
    pub fault: FaultOwner,
    /// More detail, in English: field paths and rules, never values.
    pub detail: String,
    /// Violations by field, for `BadRequest`.
    pub violations: Vec<Violation>,
    /// When to retry.
    pub retry_after: Option<Duration>,
    /// The source's own code.
    pub source_code: Option<Box<str>>,
    /// The grants' rule that refused it: for the log and for staff, never for the caller.
    pub rule: Option<Box<str>>,
    /// The rest of a gRPC source's status.
    pub source_status: Option<Box<SourceStatus>>,
    /// Of a write with an unknown outcome: the reason that it is unknown.
    pub cause: Option<Reason>,
    /// The maintenance of the source that goes on.
    pub maintenance: Option<Box<Maintenance>>,
}

/// A source's maintenance, as callers read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// From when to when, as RFC 3339 times.
    pub interval: String,
    /// Time until its end.
    pub remaining: Duration,
    /// What an administrator wrote about it, in Vietnamese: at most 300 bytes.
    pub vietnamese: String,
    /// The same in English; may be empty.
    pub english: String,
}

/// The status of a gRPC source, beside its code. Its message is free text that may contain personal data: it is neither
/// passed on nor logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// `ErrorInfo.reason` and `ErrorInfo.domain`, as `domain/REASON`, if both have the form that google.rpc requires.
    pub reason: String,
    /// What was not passed on: `message`, and the types of details.
    pub dropped: Vec<String>,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Refusal::with(Reason::RequestMalformed, malformed.to_string())
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        let fault = reason.fault();
        Refusal {
            reason,
            fault,
            detail: String::new(),
            violations: Vec::new(),
            retry_after: None,
            source_code: None,
            source_status: None,
            rule: None,
            cause: None,
            maintenance: None,
        }
    }
}

impl Refusal {
    /// Makes a refusal with a detail.
    pub fn with(reason: Reason, detail: impl Into<String>) -> Self {
        Refusal { detail: detail.into(), ..reason.into() }
    }

    /// Makes a refusal with a retry delay.
    pub fn retry(reason: Reason, after: Duration) -> Self {
        Refusal { retry_after: Some(after), ..reason.into() }
    }

    /// Makes a refusal with field violations.
    pub fn fields(violations: Vec<Violation>) -> Self {
        Refusal { violations, ..Reason::FieldInvalid.into() }
    }

    /// The same of a write that was sent and may have been done: what its caller must not take for "not done". Never with a time
    /// to try again.
    pub fn of_an_open_write(self) -> Self {
        let (reason, cause) = (Reason::WriteOutcomeUnknown, Some(self.reason));
        Refusal { reason, cause, retry_after: None, violations: Vec::new(), ..self }
    }

    /// The same of a source under maintenance, if it failed or could not be reached; with a time to try again, in five minutes or at
    /// the end: it may be back early. A write with an unknown outcome gets none.
    pub fn under_maintenance(self, maintenance: Maintenance) -> Self {
        let is_elsewhere = matches!(self.fault, FaultOwner::Source | FaultOwner::Hub) || self.cause.is_some();
        let failed = matches!(
            self.reason.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::DataLoss
        );
        if !is_elsewhere || !failed {
            return self;
        }
        let again = self.retry_after.unwrap_or_default().max(maintenance.remaining.min(MAINTENANCE_RETRY));
        let retry_after = self.cause.is_none().then_some(again);
        Refusal { retry_after, maintenance: Some(Box::new(maintenance)), ..self }
    }

    /// As a gRPC status with `google.rpc` details.
    pub fn to_status(&self, exchange_id: &str) -> tonic::Status {
        let reason = self.reason;
        let mut metadata: std::collections::HashMap<String, String> = Default::default();
        if !exchange_id.is_empty() {
            metadata.insert("exchange_id".into(), exchange_id.into());
        }
        metadata.insert("fault".into(), self.fault.as_str().into());
        if let Some(code) = &self.source_code {
            metadata.insert("source_code".into(), cut(code, MAX_TEXT));
        }
        if let Some(status) = self.source_status.as_ref().filter(|status| !status.reason.is_empty()) {
            metadata.insert("source_reason".into(), status.reason.clone());
        }
        if let Some(cause) = self.cause {
            metadata.insert("outcome".into(), "unknown".into());
            metadata.insert("cause".into(), cause.as_str().into());
        }
        let mut localized = match self.violations.as_slice() {
            // A person filled in the field: they read what it must be.
            [one] if !one.vietnamese.is_empty() => cut(&one.vietnamese, MAX_TEXT),
            _ => reason.vietnamese().to_owned(),
        };
        if let Some(maintenance) = &self.maintenance {
            metadata.insert("maintenance".into(), maintenance.interval.clone());
            localized = format!("{localized} Nguồn đang bảo trì: {}", cut(&maintenance.vietnamese, MAX_TEXT));
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.as_str(), DOMAIN, metadata).set_localized_message("vi", localized);
        let mut left = MAX_VIOLATIONS;
        for (at, violation) in self.violations.iter().enumerate() {
            let (field, description) = (cut(&violation.field, MAX_TEXT), cut(&violation.description, MAX_TEXT));
            match left.checked_sub(field.len() + description.len() + VIOLATION) {
                Some(rest) => left = rest,
                None => {
                    let more = format!("and {} more", self.violations.len() - at);
                    details.add_bad_request_violation("…", more);
                    break;
                }
            }
            details.add_bad_request_violation(field, description);
        }
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        if reason == Reason::QuotaExceeded {
            details.add_quota_failure_violation("client", cut(&self.detail, MAX_TEXT));
        }
        let message = match (self.detail.as_str(), self.violations.first()) {
            ("", None) => reason.english().to_owned(),
            ("", Some(first)) => {
                let more = self.violations.len() - 1;
                let tail = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                format!("{}: {}{tail}", first.field, first.description)
            }
            (detail, _) => format!("{} ({detail})", reason.english().trim_end_matches('.')),
        };
        let message = match &self.maintenance {
            Some(maintenance) if maintenance.english.is_empty() => {
                format!("{message} The source is under maintenance.")
            }
            Some(maintenance) => format!("{message} The source is under maintenance: {}", maintenance.english),
            None => message,
        };
        tonic::Status::with_error_details(reason.code(), cut(&message, MAX_TEXT), details)
    }
}

/// Longest delay before a call is tried again at a source under maintenance.
const MAINTENANCE_RETRY: Duration = Duration::from_secs(300);
/// Longest text in a status, in bytes: three times as long where it is not ASCII and goes percent-encoded.
const MAX_TEXT: usize = 400;
/// Most bytes of violations, and what one has beside its texts. With all else that a status may hold they make 6 kB on the
/// wire at most, message and base64 included: common clients take no more than 8 kB of metadata.
const MAX_VIOLATIONS: usize = 2_000;
const VIOLATION: usize = 8;

/// A text, cut to some bytes.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - '…'.len_utf8()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Bytes of a status in its trailers.
    fn on_the_wire(refusal: &Refusal) -> usize {
        let mut headers = http::HeaderMap::new();
        refusal.to_status("0199f3a0-0000-7000-8000-000000000000").add_header(&mut headers).unwrap();
        headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
    }

    #[test]
    fn d4_a_status_has_6_kb_at_most_and_tells_how_much_was_cut() {
        let violation = |text: &str| Violation::new(text, text).in_vietnamese(text);
        for text in ["citizens[3].name", &"á".repeat(2_000), &"x".repeat(300), &"ệ".repeat(133)] {
            for reason in Reason::ALL {
                let refusal = Refusal {
                    violations: (0..500).map(|_| violation(text)).collect(),
                    retry_after: Some(Duration::from_secs(86_400)),
                    source_code: Some(text.repeat(20).into()),
                    maintenance: Some(Box::new(Maintenance {
                        interval: "2026-11-27T22:00:00+07:00/2026-11-28T02:00:00+07:00".into(),
                        remaining: Duration::from_secs(60),
                        vietnamese: "ệ".repeat(100),
                        english: "x".repeat(300),
                    })),
                    ..Refusal::with(*reason, text.repeat(20))
                };
                assert!(on_the_wire(&refusal) <= 6 << 10, "{reason:?}: {}", on_the_wire(&refusal));
            }
            let status = Refusal::fields((0..500).map(|_| violation(text)).collect()).to_status("");
            let violations = status.get_details_bad_request().unwrap().field_violations;
            let more: usize = violations.last().unwrap().description.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(violations.len() - 1 + more, 500);
        }
        // What fits is whole.
        let status = Refusal::fields((0..10).map(|_| violation("dossier.number")).collect()).to_status("");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 10);
    }

    #[test]
    fn the_documented_table_is_the_one_in_force() {
        let mut table = String::from("| status | reason | what to do | |\n| --- | --- | --- | --- |\n");
        for reason in Reason::ALL {
            let code = format!("{:?}", reason.code());
            let code: String = code
                .char_indices()
                .flat_map(|(at, c)| {
                    (at > 0 && c.is_uppercase()).then_some('_').into_iter().chain([c.to_ascii_uppercase()])
                })
                .collect();
            table.push_str(&format!(
                "| {code} | {} | {} | {} |\n",
                reason.as_str(),
                reason.english(),
                reason.vietnamese()
            ));
        }
        let documented = include_str!("../docs/statuses.md");
        assert!(documented.ends_with(&table), "docs/statuses.md must end with:\n{table}");
    }
}
