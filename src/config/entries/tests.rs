//! Each kind of credentials at a source of each protocol: accepted if a request carries it, refused by name otherwise.

use super::*;
use std::fmt::Write as _;

/// Sources of one operation each.
const BINDINGS: [(&str, &str); 7] = [
    ("restget", r#"rest: { get: "/get" }"#),
    ("restpost", r#"rest: { post: "/post" }"#),
    ("restlist", r#"rest: { post: "/list" }"#),
    ("soap", r#"soap: { request: "Get" namespace: "urn:in" response: "Got" response_namespace: "urn:in" }"#),
    (
        "roadsoap",
        r#"xroad: { service_code: "get" soap: { request: "Get" namespace: "urn:in" response: "Got" response_namespace: "urn:in" } }"#,
    ),
    ("roadrest", r#"xroad: { service_code: "get" rest: { post: "/post" } }"#),
    ("grpc", "grpc: {}"),
];

/// Kinds with their keys, and whether each of the sources above uses them.
const KINDS: [(&str, &str, [bool; 7]); 6] = [
    ("none", "", [true; 7]),
    ("api-key", "header = 'apikey'\nkey = { file = 'secret' }", [true, true, true, true, true, true, false]),
    (
        "oauth2",
        "token_path = '/token'\nconsumer_key = 'k'\nconsumer_secret = { file = 'secret' }",
        [true, true, true, true, true, true, false],
    ),
    (
        "session",
        "login_path = '/login'\nusername = 'u'\npassword = { file = 'secret' }\nfield = 'session'",
        [false, true, false, false, false, false, false],
    ),
    (
        "hashed-basic",
        "user = 'u'\nsecret = { file = 'secret' }\nxroad_client = 'VN/GOV/H49/GW'\napi_key = { file = 'secret' }",
        [true, true, true, true, true, true, false],
    ),
    (
        "username-token",
        "username = 'u'\npassword = { file = 'secret' }",
        [false, false, false, true, true, false, false],
    ),
];

struct Folder {
    path: tempfile::TempDir,
    contracts: ContractSet,
}

impl Folder {
    fn new() -> Self {
        let path = tempfile::tempdir().unwrap();
        let mut proto = "syntax = \"proto3\";\npackage kinds.v1;\nimport \"ndxp/contract/v1/contract.proto\";\n\
                         message Ask { string name = 1; }\nmessage Told { string text = 1; }\n\
                         message List { repeated Ask rows = 1 [(ndxp.contract.v1.field).name = \".\"]; }\n"
            .to_owned();
        for (source, binding) in BINDINGS {
            // A body that is a list has no root.
            let request = if source == "restlist" { "List" } else { "Ask" };
            write!(
                proto,
                "service {source} {{ option (ndxp.contract.v1.source) = {{ id: \"{source}\" outcome: {{ absent_is_success: true }} }};\n\
                 rpc Get({request}) returns (Told) {{ option idempotency_level = NO_SIDE_EFFECTS; option (ndxp.contract.v1.operation) = \
                 {{ scope: \"{source}:read\" data_class: OPEN {binding} }}; }} }}\n"
            )
            .unwrap();
        }
        let at = |name: &str| path.path().join(name);
        for folder in ["contracts", "hubs", "sources"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        std::fs::write(at("contracts/kinds.proto"), proto).unwrap();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(at("ca.pem"), key.cert.pem()).unwrap();
        for folder in ["hubs/secret", "sources/secret"] {
            std::fs::write(at(folder), "a secret of some length").unwrap();
        }
        let contracts = ContractSet::with_folder(&at("contracts")).unwrap();
        Folder { path, contracts }
    }

    fn write(&self, file: &str, text: String) {
        std::fs::write(self.path.path().join(file), text).unwrap();
    }

    /// Loads the entry of a source with these further lines; returns the faults.
    fn load(&self, source: &str, rest: &str) -> Vec<String> {
        let xroad = match source.starts_with("road") {
            true => "[xroad]\nclient = 'VN/GOV/H49/GW'\nservice = 'VN/GOV/SRC/SUB'\n",
            false => "",
        };
        self.write("sources/one.toml", format!("source = '{source}'\n{rest}\n{xroad}"));
        let at = |name: &str| self.path.path().join(name);
        match load(&at("hubs"), &at("sources"), &self.contracts) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.reason).collect(),
        }
    }
}

#[test]
fn u12_a_kind_that_no_request_carries_is_refused_at_load() {
    let folder = Folder::new();
    for (kind, keys, carried) in KINDS {
        for ((source, _), carried) in BINDINGS.into_iter().zip(carried) {
            let direct = "address = 'https://localhost:1'\n[tls]\nca = '../ca.pem'";
            let own = folder.load(source, &format!("{direct}\n[credentials]\nkind = '{kind}'\n{keys}"));
            // The same for credentials of a hub, the first or the second.
            for hub in ["first", "second"] {
                let of_hub = if hub == "first" { (kind, keys) } else { ("none", "") };
                for (id, (kind, keys)) in [("first", of_hub), ("second", (kind, keys))] {
                    let mut text = format!("hub = '{id}'\naddress = 'https://localhost:1'\n[tls]\nca = '../ca.pem'\n");
                    for protocol in registry::protocols() {
                        writeln!(text, "[credentials.{}]\nkind = '{kind}'\n{keys}", protocol.name).unwrap();
                    }
                    folder.write(&format!("hubs/{id}.toml"), text);
                }
                let second = if hub == "first" { "" } else { "[second]\nhub = 'second'\nmode = 'failover'\n" };
                let through = folder.load(source, &format!("hub = 'first'\n{second}"));
                let refused = |faults: &[String]| matches!(faults, [fault] if fault.contains("these credentials are never sent: "));
                for (place, faults) in [("own", &own), (hub, &through)] {
                    let right = if carried { faults.is_empty() } else { refused(faults) };
                    assert!(right, "{kind} at {source}, {place}: {faults:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_wrong_with_an_entry_is_told_by_its_key_and_all_of_it_at_once() {
    let folder = Folder::new();
    let direct = |lines: &str| format!("{lines}\n[tls]\nca = '../ca.pem'");
    let good = "address = 'https://localhost:1'";
    for (entry, wanted) in [
        (direct(good), &[][..]),
        (direct("address = ['https://localhost:1', 'https://localhost:2/']"), &[]),
        (direct("address = 'http://localhost:1'"), &["address"]),
        (direct("address = ['https://localhost:1', 'https://localhost:1/']"), &["address"]),
        (direct(""), &["address"]),
        ("hub = 'nowhere'".to_owned(), &["there is no hub \"nowhere\"; known: "]),
        (direct(&format!("{good}\ncontract = 'v9'")), &["there is no contract \"v9\" of it: v1"]),
        (direct(&format!("{good}\nhealth_path = 'up'")), &["health_path"]),
        (direct(&format!("{good}\nmax_response_bytes = 10")), &["max_response_bytes"]),
        (direct(&format!("{good}\nunknown = 1")), &["unknown"]),
        (format!("{good}\n[tls]\nca = '../nothing.pem'"), &["ca: "]),
        (
            format!("{good}\n[tls]\nca = '../ca.pem'\ncertificate = '../ca.pem'"),
            &["certificate and key belong together"],
        ),
        (direct(good) + "\n[credentials]\nkind = 'password'", &["must be none, api-key, oauth2"]),
        (direct(good) + "\n[credentials]\nkind = 'api-key'\nheader = 'a b'", &["is no header name", "key: is missing"]),
        (
            direct(good) + "\n[credentials]\nkind = 'api-key'\nheader = 'a'\nkey = 'clear'",
            &["a secret is never in the file"],
        ),
        (
            direct(good) + "\n[second]\nhub = 'nowhere'\nmode = 'both'",
            &["no hub \"nowhere\"", "failover, share or shadow"],
        ),
        (direct(good) + "\n[guard]\nconcurrency = 0", &["concurrency"]),
    ] {
        let found = folder.load("restpost", &entry);
        let reported =
            found.len() == wanted.len() && wanted.iter().all(|one| found.iter().any(|fault| fault.contains(one)));
        assert!(reported, "{entry}\n{found:#?}");
    }
}

#[test]
fn the_request_hash_is_checked_unless_the_entry_says_keep() {
    let folder = Folder::new();
    let direct = "address = 'https://localhost:1'\n[tls]\nca = '../ca.pem'\n[xroad]\nclient = 'VN/GOV/H49/GW'\nservice = 'VN/GOV/SRC/SUB'\n";
    let at = |name: &str| folder.path.path().join(name);
    for (line, wanted) in [
        ("", Some(RequestHash::Check)),
        ("request_hash = 'check'", Some(RequestHash::Check)),
        ("request_hash = 'keep'", Some(RequestHash::Keep)),
        ("request_hash = 'none'", None),
    ] {
        folder.write("sources/one.toml", format!("source = 'roadrest'\n{direct}{line}\n"));
        let loaded = load(&at("hubs"), &at("sources"), &folder.contracts).ok();
        let hash = loaded.and_then(|Entries { sources, .. }| Some(sources["roadrest"].xroad.as_ref()?.request_hash));
        assert_eq!(hash, wanted, "{line}");
    }
}
