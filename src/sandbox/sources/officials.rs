//! Officials and Public Employees: gRPC over mTLS, unary and a client stream.

use crate::contract::{ContractSet, Operation};
use crate::frame::{FrameReader, frame};
use crate::sandbox::faults::{FaultKind, Faults};
use crate::sandbox::http::{self, HttpReply, ReplyBody, accept};
use crate::sandbox::province::{Gender, Official, Province};
use ::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Frame, Incoming};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::Status;

const GET: &str = "/ndxp.officials.v1.OfficialsService/GetOfficial";
const SYNC: &str = "/ndxp.officials.v1.OfficialsService/SyncOfficials";
/// Maximum message size.
const MAX_MESSAGE: usize = 4 << 20;

/// The source.
pub struct Officials {
    province: Arc<Province>,
    get: Arc<Operation>,
    sync: Arc<Operation>,
    faults: Arc<Faults>,
}

impl Officials {
    /// Makes the source; `None` if the embedded contracts lack it.
    pub fn new(province: Arc<Province>, contracts: &ContractSet, faults: Arc<Faults>) -> Option<Self> {
        let operation = |path| contracts.operation(path).cloned();
        Some(Officials { province, get: operation(GET)?, sync: operation(SYNC)?, faults })
    }

    /// Serves until the runtime ends. The TLS configuration requires the gateway's certificate.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        accept(listener, tls, move |request| {
            let source = self.clone();
            async move { source.answer(request).await }
        })
        .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<ReplyBody>> {
        let fault = self.faults.requested("officials");
        http::before(fault).await?;
        let result = match fault.kind {
            FaultKind::CredentialsRefused | FaultKind::CredentialsExpired => {
                Err(Status::unauthenticated("unknown caller"))
            }
            _ => self.call(request).await,
        };
        match (result, fault.kind) {
            (Ok(message), FaultKind::None) => Ok(grpc(Some(frame(&message)), Status::ok(""))),
            (Ok(message), _) => {
                let reply = HttpReply::typed(200, "application/grpc", frame(&message).to_vec());
                Ok(http::apply_fault(reply, fault))
            }
            (Err(status), _) => Ok(grpc(None, status)),
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Bytes, Status> {
        let path = request.uri().path().to_owned();
        let mut reader = FrameReader::new(request.into_body(), MAX_MESSAGE);
        let broken = || Status::invalid_argument("no message");
        match path.as_str() {
            GET => {
                let bytes = reader.only().await.map_err(|_| broken())?;
                let message = DynamicMessage::decode(self.get.request.message.clone(), bytes).map_err(|_| broken())?;
                let id = message.get_field_by_name("citizen_id").and_then(|id| id.as_str().map(str::to_owned));
                let found =
                    self.province.officials.iter().find(|official| {
                        Some(self.province.people[official.person].citizen_id.as_str()) == id.as_deref()
                    });
                let official = found.ok_or_else(|| Status::not_found("no such official"))?;
                Ok(self.describe(official).encode_to_vec().into())
            }
            SYNC => {
                let (mut accepted, mut refused) = (0, 0);
                while let Some(bytes) = reader.next().await.map_err(|_| broken())? {
                    let official = DynamicMessage::decode(self.sync.request.message.clone(), bytes);
                    let whole = official.is_ok_and(|official| official.has_field_by_name("full_name"));
                    if whole { accepted += 1 } else { refused += 1 }
                }
                let mut answer = DynamicMessage::new(self.sync.response.message.clone());
                answer.set_field_by_name("accepted", Value::I32(accepted));
                answer.set_field_by_name("refused", Value::I32(refused));
                Ok(answer.encode_to_vec().into())
            }
            _ => Err(Status::unimplemented("no such method")),
        }
    }

    fn describe(&self, official: &Official) -> DynamicMessage {
        let person = &self.province.people[official.person];
        let mut message = DynamicMessage::new(self.get.response.message.clone());
        let texts = [
            ("citizen_id", person.citizen_id.clone()),
            ("official_code", official.code.clone()),
            ("full_name", person.full_name()),
            ("agency_code", official.agency.clone()),
            ("agency_name", official.agency_name.to_owned()),
            ("position", official.position.to_owned()),
            ("grade_code", official.grade.to_owned()),
        ];
        for (name, text) in texts {
            message.set_field_by_name(name, Value::String(text));
        }
        let gender = if person.gender == Gender::Male { 1 } else { 2 };
        message.set_field_by_name("gender", Value::EnumNumber(gender));
        message.set_field_by_name("kind", Value::EnumNumber(2));
        message.set_field_by_name("salary_coefficient", Value::F64(official.salary_hundredths as f64 / 100.0));
        let (year, month, day) = person.birth;
        let date = message.descriptor().get_field_by_name("birth_date");
        if let Some(kind) = date.as_ref().and_then(|field| field.kind().as_message().cloned()) {
            let mut birth = DynamicMessage::new(kind);
            for (name, part) in [("year", i32::from(year)), ("month", i32::from(month)), ("day", i32::from(day))] {
                birth.set_field_by_name(name, Value::I32(part));
            }
            message.set_field_by_name("birth_date", Value::Message(birth));
        }
        message
    }
}

fn grpc(message: Option<Bytes>, status: Status) -> Response<ReplyBody> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    let frames = message.map(Frame::data).into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    let mut answer = Response::new(UnsyncBoxBody::new(StreamBody::new(stream::iter(frames))));
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}
