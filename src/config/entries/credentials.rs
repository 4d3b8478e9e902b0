//! The credentials of a hub or source.

use crate::config::reader::Table;
use crate::drivers::credentials::{Credentials, HashedBasic, Lgsp, LoginSession, OAuth2, UsernameToken};

/// Reads a table of credentials, and refuses keys that its kind does not have; `None` if something is wrong with it.
pub(super) fn read(table: &Table<'_>) -> Option<Credentials> {
    let credentials = read_credentials(table);
    table.refuse_unknown();
    credentials
}

const KINDS: &str = "none, api-key, oauth2, session, hashed-basic or username-token";

fn read_credentials(table: &Table<'_>) -> Option<Credentials> {
    match table.needed("kind", "oauth2")?.as_str() {
        "none" => Some(Credentials::None),
        "api-key" => {
            let header = table.parsed("header", "apikey", |text| text.parse().map_err(|_| "is no header name".into()));
            let key = table.secret("key");
            Some(Credentials::ApiKey { header: header?, key: key? })
        }
        "oauth2" => {
            let token_path = table.needed("token_path", "/token");
            let key = table.needed("consumer_key", "quangninh");
            let secret = table.secret("consumer_secret");
            let lgsp = table.table("lgsp").map(|lgsp| {
                let read = read_lgsp(&lgsp);
                lgsp.refuse_unknown();
                read
            });
            let lgsp = lgsp.map_or(Some(None), |lgsp| lgsp.map(Some));
            Some(Credentials::OAuth2(OAuth2::new(token_path?, key?, secret?, lgsp?)))
        }
        "session" => {
            let login_path = table.needed("login_path", "/login");
            let username = table.needed("username", "quangninh");
            let password = table.secret("password");
            let field = table.needed("field", "session");
            Some(Credentials::Session(LoginSession::new(login_path?, username?, password?, field?)))
        }
        "hashed-basic" => {
            let user = table.needed("user", "quangninh");
            let secret = table.secret("secret");
            let xroad_client = table.needed("xroad_client", "VN/GOV/H49/GATEWAY");
            let api_key = table.secret("api_key");
            Some(Credentials::HashedBasic(HashedBasic {
                user: user?,
                secret: secret?,
                xroad_client: xroad_client?,
                api_key: api_key?,
            }))
        }
        "username-token" => {
            let username = table.needed("username", "quangninh");
            let password = table.secret("password");
            Some(Credentials::UsernameToken(UsernameToken { username: username?, password: password? }))
        }
        _ => {
            table.fault("kind", format!("must be {KINDS}"));
            None
        }
    }
}

fn read_lgsp(table: &Table<'_>) -> Option<Lgsp> {
    let access_key = table.secret("access_key");
    let secret_key = table.secret("secret_key");
    let app_name = table.needed("app_name", "NDXP-GATEWAY");
    let partner_code = table.needed("partner_code", "000.00.00.H49");
    let partner_code_cus = table.needed("partner_code_cus", "000.00.00.H49");
    Some(Lgsp {
        access_key: access_key?,
        secret_key: secret_key?,
        app_name: app_name?,
        partner_code: partner_code?,
        partner_code_cus: partner_code_cus?,
    })
}
