//! An OpenID provider of the tests' own: TLS of the province's CA, real signatures, and every lie that a row of a table names.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ndxp_gateway::identity::tls;
use ndxp_gateway::registry::now;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const CLIENT: &str = "ndxp-gateway";
pub const SECRET: &str = "the-gateways-own-secret-at-the-provider";
pub const CALLBACK: &str = "https://localhost/console/openid/callback";

/// How an ID token is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// As it should be, by the key of this algorithm.
    By(Algorithm),
    /// `alg: none`.
    Not,
    /// With the public key as a shared secret.
    WithPublicKey,
    /// By another key, under the name of the right one.
    ByAnother,
    /// By a key that the provider does not publish.
    ByUnknown,
    /// By one key, under the name of another kind.
    UnderAnotherName,
    /// Rightly, and then changed.
    ThenChanged,
    /// Not a token at all.
    Garbage,
}

/// What an endpoint answers in place of the truth.
#[derive(Clone)]
pub enum Answer {
    Truth,
    Status(u16, &'static str),
    Redirect,
    Oversize,
    Silence,
}

/// What is not as it should be.
#[derive(Clone)]
pub struct Lie {
    pub claims: fn(&mut Value),
    pub signed: Signed,
    pub token: fn(&mut Value),
    pub metadata: fn(&mut Value),
    pub token_answer: Answer,
    pub metadata_answer: Answer,
    pub keys_answer: Answer,
}

impl Default for Lie {
    fn default() -> Self {
        Lie {
            claims: |_| {},
            signed: Signed::By(Algorithm::RS256),
            token: |_| {},
            metadata: |_| {},
            token_answer: Answer::Truth,
            metadata_answer: Answer::Truth,
            keys_answer: Answer::Truth,
        }
    }
}

/// What a code stands for.
struct Code {
    challenge: String,
    nonce: String,
    person: String,
}

#[derive(Default)]
struct State {
    lie: Lie,
    codes: HashMap<String, Code>,
    /// Requests by path.
    asked: HashMap<String, usize>,
}

struct Keys {
    by: Vec<(Algorithm, EncodingKey, Jwk)>,
    other: EncodingKey,
    public: String,
}

/// The provider, at work.
pub struct OpenIdProvider {
    pub issuer: String,
    state: Arc<Mutex<State>>,
    keys: Arc<Keys>,
}

fn made(algorithm: Algorithm, kid: &str) -> (EncodingKey, Jwk, KeyPair) {
    let (kind, read): (_, fn(&[u8]) -> _) = match algorithm {
        Algorithm::ES256 => (&PKCS_ECDSA_P256_SHA256, EncodingKey::from_ec_pem),
        Algorithm::EdDSA => (&PKCS_ED25519, EncodingKey::from_ed_pem),
        _ => (&PKCS_RSA_SHA256, EncodingKey::from_rsa_pem),
    };
    let pair = KeyPair::generate_for(kind).unwrap();
    let key = read(pair.serialize_pem().as_bytes()).unwrap();
    let mut jwk = match algorithm {
        // The crate reads no private key of this kind as rcgen writes it.
        Algorithm::EdDSA => {
            let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
            serde_json::from_value(json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": x }))
                .unwrap()
        }
        _ => Jwk::from_encoding_key(&key, algorithm).unwrap(),
    };
    jwk.common.key_id = Some(kid.into());
    (key, jwk, pair)
}

impl OpenIdProvider {
    /// Starts one on a free port, with the sandbox's certificate.
    pub async fn start(pki: &Path) -> Self {
        let chain = tls::certificates(&pki.join("sandbox.pem")).unwrap();
        let key = tls::private_key(&pki.join("sandbox.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (rsa, rsa_jwk, pair) = made(Algorithm::RS256, "rsa");
        let (pss, pss_jwk, _) = made(Algorithm::PS256, "pss");
        let (ec, ec_jwk, _) = made(Algorithm::ES256, "ec");
        let (ed, ed_jwk, _) = made(Algorithm::EdDSA, "ed");
        let by = vec![
            (Algorithm::RS256, rsa, rsa_jwk),
            (Algorithm::PS256, pss, pss_jwk),
            (Algorithm::ES256, ec, ec_jwk),
            (Algorithm::EdDSA, ed, ed_jwk),
        ];
        let keys = Arc::new(Keys { by, other: made(Algorithm::RS256, "other").0, public: pair.public_key_pem() });
        let provider = OpenIdProvider { issuer, state: Arc::default(), keys };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (issuer, state, keys) = (provider.issuer.clone(), provider.state.clone(), provider.keys.clone());
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, issuer, state, keys) = (acceptor.clone(), issuer.clone(), state.clone(), keys.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service =
                        service_fn(move |request| answered(issuer.clone(), state.clone(), keys.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        provider
    }

    /// From now on, not as it should be.
    pub fn lie(&self, lie: Lie) {
        self.state.lock().unwrap().lie = lie;
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().asked.get(path).copied().unwrap_or_default()
    }

    /// What a person does at the provider: signs in, and is sent back. `to` is where the gateway has sent them.
    pub fn sign_in(&self, to: &str, person: &str) -> String {
        let query = to.strip_prefix(&format!("{}/auth?", self.issuer)).expect("the provider's own page");
        let sent: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let of = |name: &str| sent.get(name).unwrap_or_else(|| panic!("no {name} in {to}")).clone();
        assert_eq!(
            (of("response_type"), of("client_id"), of("redirect_uri")),
            ("code".into(), CLIENT.into(), CALLBACK.into())
        );
        assert_eq!((of("code_challenge_method"), of("scope")), ("S256".into(), "openid profile".into()));
        assert!(of("state").len() >= 43 && of("nonce").len() >= 43 && of("state") != of("nonce"));
        let code = uuid::Uuid::new_v4().simple().to_string();
        let one = Code { challenge: of("code_challenge"), nonce: of("nonce"), person: person.into() };
        self.state.lock().unwrap().codes.insert(code.clone(), one);
        let mut back = form_urlencoded::Serializer::new(String::new());
        back.append_pair("code", &code).append_pair("state", &of("state")).append_pair("iss", &self.issuer);
        format!("/console/openid/callback?{}", back.finish())
    }
}

async fn answered(
    issuer: String,
    state: Arc<Mutex<State>>,
    keys: Arc<Keys>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().to_owned();
    let lie = {
        let mut state = state.lock().unwrap();
        *state.asked.entry(path.clone()).or_default() += 1;
        state.lie.clone()
    };
    let (answer, truth) = match (&head.method, path.as_str()) {
        (&Method::GET, "/.well-known/openid-configuration") => {
            let mut own = json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
                "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
            });
            (lie.metadata)(&mut own);
            (lie.metadata_answer.clone(), own.to_string())
        }
        (&Method::GET, "/jwks") => {
            let mut all: Vec<Value> = keys.by.iter().map(|(_, _, jwk)| serde_json::to_value(jwk).unwrap()).collect();
            // Kinds that nobody knows are left out, and a shared secret is no public key.
            all.push(json!({ "kty": "new-kind", "kid": "new" }));
            all.push(json!({ "kty": "oct", "kid": "oct", "k": "c2VjcmV0" }));
            (lie.keys_answer.clone(), json!({ "keys": all }).to_string())
        }
        (&Method::POST, "/token") => match redeemed(&head.headers, &body, &state, &issuer, &keys, &lie) {
            Ok(tokens) => (lie.token_answer.clone(), tokens.to_string()),
            Err(_) => (
                Answer::Status(400, r#"{"error":"invalid_grant","error_description":"said-by-the-provider"}"#),
                String::new(),
            ),
        },
        _ => (Answer::Status(404, "nothing here"), String::new()),
    };
    let whole = |status: u16, text: String| {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Full::new(text.into()))
            .unwrap()
    };
    Ok(match answer {
        Answer::Truth => whole(200, truth),
        Answer::Status(status, text) => whole(status, text.into()),
        Answer::Redirect => {
            let mut response = whole(302, String::new());
            // Where the truth is: nobody follows.
            let to = format!("{issuer}{path}?again").parse().unwrap();
            response.headers_mut().insert(header::LOCATION, to);
            state.lock().unwrap().lie = Lie::default();
            response
        }
        Answer::Oversize => whole(200, format!("{}{}", " ".repeat(70_000), truth)),
        Answer::Silence => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            whole(200, truth)
        }
    })
}

/// Redeems a code once, for its own client and by its own verifier.
fn redeemed(
    headers: &http::HeaderMap,
    body: &[u8],
    state: &Mutex<State>,
    issuer: &str,
    keys: &Keys,
    lie: &Lie,
) -> Result<Value, &'static str> {
    let sent: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let of = |name: &str| sent.get(name).map(String::as_str).unwrap_or_default();
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{CLIENT}:{SECRET}")));
    if headers.get(header::AUTHORIZATION).is_none_or(|sent| sent.as_bytes() != basic.as_bytes()) {
        return Err("the client");
    }
    let code = state.lock().unwrap().codes.remove(of("code")).ok_or("the code")?;
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, of("code_verifier").as_bytes()));
    if challenge != code.challenge || of("redirect_uri") != CALLBACK || of("grant_type") != "authorization_code" {
        return Err("the verifier");
    }
    let access_token = uuid::Uuid::new_v4().to_string();
    let mut tokens = json!({
        "access_token": access_token, "token_type": "Bearer", "expires_in": 60,
        "id_token": id_token(&code, &access_token, issuer, keys, lie),
    });
    (lie.token)(&mut tokens);
    Ok(tokens)
}

fn id_token(code: &Code, access_token: &str, issuer: &str, keys: &Keys, lie: &Lie) -> String {
    let algorithm = if let Signed::By(algorithm) = lie.signed { algorithm } else { Algorithm::RS256 };
    let hash = if algorithm == Algorithm::EdDSA { &SHA512 } else { &SHA256 };
    let half = digest(hash, access_token.as_bytes());
    let mut claims = json!({
        "iss": issuer, "sub": code.person, "aud": CLIENT, "exp": now() + 60, "iat": now(), "nonce": code.nonce,
        "at_hash": URL_SAFE_NO_PAD.encode(&half.as_ref()[..half.as_ref().len() / 2]), "name": "Nguyễn Thị Lan",
    });
    (lie.claims)(&mut claims);
    let (_, key, jwk) = keys.by.iter().find(|(own, ..)| *own == algorithm).unwrap();
    let header = |algorithm, kid: &str| Header { kid: Some(kid.into()), ..Header::new(algorithm) };
    let own = header(algorithm, jwk.common.key_id.as_deref().unwrap());
    let encode = |header: &Header, key: &EncodingKey| jsonwebtoken::encode(header, &claims, key).unwrap();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    match lie.signed {
        Signed::By(_) => encode(&own, key),
        Signed::Not => format!("{}.{}.", part(json!({ "alg": "none" })), part(claims)),
        Signed::WithPublicKey => {
            encode(&header(Algorithm::HS256, "rsa"), &EncodingKey::from_secret(keys.public.as_bytes()))
        }
        Signed::ByAnother => encode(&own, &keys.other),
        Signed::ByUnknown => encode(&header(algorithm, "other"), &keys.other),
        Signed::UnderAnotherName => encode(&header(algorithm, "ec"), key),
        Signed::ThenChanged => {
            let whole = encode(&own, key);
            let parts: Vec<&str> = whole.split('.').collect();
            let mut other = claims.clone();
            other["sub"] = "minh".into();
            format!("{}.{}.{}", parts[0], part(other), parts[2])
        }
        Signed::Garbage => "no.token".into(),
    }
}
