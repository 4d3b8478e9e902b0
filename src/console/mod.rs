//! The console: the work of administrators, approvers and auditors in a browser, on the HTTPS port. A page calls the methods of
//! `ndxp.admin.v1` and `ndxp.audit.v1` in the name of the signed-in person. It has no rule of its own: it does nothing that those services
//! refuse. Every task works without JavaScript; with it, parts of two pages refresh themselves.

mod approvals;
pub(crate) mod auditor;
pub(crate) mod chart;
mod client_change;
mod clients;
mod developer;
mod entry;
mod exchanges;
mod failure;
mod form;
mod grants;
mod headers;
mod last_use;
mod layout;
mod openid;
mod operator;
mod overview;
mod session;
mod sign_in;
mod table;
pub(crate) mod text;
mod tokens;

use crate::access::staff::StaffAuthorizer;
use crate::admin::Admin;
use crate::audit::service::Audit;
use crate::config::{Config, OfficialNames};
use crate::contract::ContractSet;
use crate::identity::Thumbprint;
use crate::registry::Snapshot;
use crate::shares::Shares;
use crate::telemetry::{Metrics, SignInMetrics};
use arc_swap::ArcSwap;
use axum::Router;
use axum::response::Redirect;
use axum::routing::{any, get, post};
use form::Form;
use openid::OpenId;
use session::{Sessions, SignedIn};
use std::sync::Arc;

/// The path below which its pages are.
pub const ROOT: &str = "/console";

/// The console with the parts of the gateway that it calls.
pub struct Console {
    admin: Admin,
    audit: Audit,
    staff: StaffAuthorizer,
    registry: Arc<ArcSwap<Snapshot>>,
    contracts: Arc<ArcSwap<ContractSet>>,
    names: Arc<ArcSwap<OfficialNames>>,
    node: Arc<str>,
    in_cluster: bool,
    sessions: Sessions,
    attempts: Arc<Shares<Thumbprint>>,
    openid: Option<OpenId>,
    sign_in: SignInMetrics,
}

impl Console {
    /// Makes a console over a gateway's services.
    pub fn new(
        admin: Admin,
        audit: Audit,
        staff: StaffAuthorizer,
        registry: Arc<ArcSwap<Snapshot>>,
        contracts: Arc<ArcSwap<ContractSet>>,
        config: &Config,
        metrics: &Metrics,
    ) -> Self {
        let attempts = Shares::new(sign_in::ATTEMPTS, metrics.work("console_sign_in"));
        let counted = || (metrics.work("console_openid"), metrics.work("console_openid_attempts"));
        let openid = config.web.openid.as_ref().map(|settings| OpenId::new(settings.clone(), counted()));
        let (node, sessions, sign_in) = (config.node.as_str().into(), Sessions::default(), metrics.sign_in.clone());
        let (names, in_cluster) = (Arc::default(), config.cluster.is_some());
        Console {
            admin,
            audit,
            staff,
            registry,
            contracts,
            names,
            node,
            in_cluster,
            sessions,
            attempts,
            openid,
            sign_in,
        }
    }

    /// The same, with the official names of agencies and procedures, which a reload replaces.
    #[must_use]
    pub fn with_names(self, names: Arc<ArcSwap<OfficialNames>>) -> Self {
        Console { names, ..self }
    }

    /// Returns the routes of all pages, with the headers that every page has.
    pub fn router(self) -> Router {
        let pages = Router::new()
            .route("/console", get(|| async { Redirect::to("/console/") }))
            .route("/console/", get(overview::page))
            .route("/console/sign-in", get(sign_in::page).post(sign_in::begin))
            .route("/console/openid", get(openid::begin))
            .route("/console/openid/callback", get(openid::callback))
            .route("/console/sign-out", post(sign_in::end))
            .route("/console/language/{locale}", post(sign_in::language))
            .route("/console/style.css", get(headers::style))
            .route("/console/script/{name}", get(headers::script))
            .route("/console/live", get(operator::live::fragment))
            .route("/console/sources", get(operator::sources::list))
            .route("/console/sources/{id}", get(operator::sources::one))
            .route("/console/sources/{id}/check", post(operator::sources::check))
            .route("/console/sources/{id}/notice", post(operator::notice_change::set))
            .route("/console/sources/{id}/notice/clear", post(operator::notice_change::clear))
            .route("/console/sources/{id}/live", get(operator::sources::fragment))
            .route("/console/cluster", get(operator::cluster::page))
            .route("/console/cluster/live", get(operator::cluster::fragment))
            .route("/console/contracts", get(operator::contracts::page))
            .route("/console/staff", get(operator::staff::list).post(operator::staff::add))
            .route("/console/staff/{id}", get(operator::staff::one).post(operator::staff::change_roles))
            .route("/console/staff/{id}/remove", post(operator::staff::remove))
            .route("/console/keys", get(operator::keys::list))
            .route("/console/keys/rotate", post(operator::keys::rotate))
            .route("/console/keys/{id}/retire", post(operator::keys::retire))
            .route("/console/catalogue", get(developer::catalogue::list))
            .route("/console/catalogue/{service}/{method}", get(developer::catalogue::one))
            .route("/console/own", get(developer::own::page))
            .route("/console/may-i", get(developer::may_i::page))
            .route("/console/clients", get(clients::list).post(clients::register))
            .route("/console/clients/register", get(clients::registration))
            .route("/console/clients/{id}", get(clients::one))
            .route("/console/clients/{id}/change", get(client_change::form).post(client_change::apply))
            .route("/console/clients/{id}/{action}", get(clients::confirmation).post(clients::apply))
            .route("/console/grants", get(grants::list).post(grants::add))
            .route("/console/grants/add", get(grants::form))
            .route("/console/grants/{id}", get(grants::one))
            .route("/console/grants/{id}/change", get(operator::grant_change::form).post(operator::grant_change::apply))
            .route("/console/grants/{id}/withdraw", post(grants::withdraw))
            .route("/console/approvals", get(approvals::list))
            .route("/console/approvals/{id}/{verdict}", post(approvals::decide))
            .route("/console/tokens", get(tokens::list).post(tokens::issue))
            .route("/console/tokens/{id}", get(tokens::one))
            .route("/console/tokens/{id}/live", get(tokens::fragment))
            .route("/console/tokens/{id}/revoke", post(tokens::revoke))
            .route("/console/exchanges", get(exchanges::search))
            .route("/console/exchanges/{id}", get(exchanges::one))
            .route("/console/exchanges/{id}/receipt", get(exchanges::receipt))
            .route("/console/people", get(auditor::subject::page).post(auditor::subject::report))
            .route("/console/findings", get(auditor::findings::page).post(auditor::findings::review))
            .route("/console/tail", get(auditor::tail::page))
            .route("/console/tail/live", get(auditor::tail::fragment))
            .route("/console/exports", get(auditor::exports::page).post(auditor::exports::start))
            .route("/console/exports/live", get(auditor::exports::fragment))
            .route("/console/exports/{id}", get(auditor::exports::file))
            .route("/console/exports/{id}/remove", post(auditor::exports::remove))
            .route("/console/checkpoints", get(auditor::checkpoints::page))
            .route("/console/checkpoints/text", get(auditor::checkpoints::file))
            .route("/console/checkpoints/acknowledge", post(auditor::checkpoints::acknowledge))
            .route("/console/holds", get(auditor::holds::page).post(auditor::holds::create))
            .route("/console/holds/{id}/release", post(auditor::holds::release))
            .route("/console/statistics", get(auditor::statistics::page))
            // Every other path of the console. Other paths of the port have their own fallback.
            .route("/console/{*other}", any(failure::not_found))
            .with_state(Arc::new(self));
        headers::layered(pages)
    }
}

/// A request to one of the gateway's own services, in the name of the signed-in person.
fn request<T>(session: &SignedIn, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(session.principal.clone());
    request
}

/// The same with the reason, from the form's field `justification`.
fn change<T>(session: &SignedIn, form: &Form, message: T) -> tonic::Request<T> {
    let mut request = request(session, message);
    let words = tonic::metadata::MetadataValue::from_bytes(form.text("justification").as_bytes());
    request.metadata_mut().insert_bin(crate::admin::JUSTIFICATION, words);
    request
}
