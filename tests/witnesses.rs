//! Witnesses in other data centres: a checkpoint counts when enough of them have signed that the log only grew.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use http::StatusCode;
use ndxp_gateway::audit::search;
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::cosignature::Policy;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::tree::{Edge, Hash, leaf_hash};
use ndxp_gateway::exchange_log::verify::Against;
use ndxp_gateway::exchange_log::{checkpoint::LogSigner, proof, verify};
use ndxp_gateway::keyfile::Vault;
use ndxp_gateway::server::Gateway;
use ndxp_gateway::witness::config::WitnessConfig;
use ndxp_gateway::witness::request::AddCheckpoint;
use ndxp_gateway::witness::server::{Told, Witness};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{Stage, UNIT, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

fn config(name: &str, state: &Path, pki: &Path, logs: Vec<LogVerifier>, port: u16) -> WitnessConfig {
    WitnessConfig {
        name: name.into(),
        listen: format!("127.0.0.1:{port}").parse().unwrap(),
        state: state.to_owned(),
        certificate: pki.join("gateway.pem"),
        key: pki.join("gateway.key"),
        logs,
        vault: Vault::default(),
    }
}

/// A witness that runs until it is dropped.
struct Running {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    port: u16,
}

impl Running {
    fn start(config: WitnessConfig) -> Self {
        let (stop, (told, bound)) = (CancellationToken::new(), std::sync::mpsc::channel());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let witness = Arc::new(Witness::open(&config).unwrap());
            let serve = witness.serve(&config, stopped, move |address| told.send(address.port()).unwrap());
            runtime.block_on(serve).unwrap();
        });
        Running { stop, port: bound.recv_timeout(Duration::from_secs(10)).unwrap(), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn exchange(stage: &Stage) {
    let actor = stage.actor("one-stop-shop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok() });
}

#[test]
fn a_checkpoint_counts_when_the_witnesses_of_its_policy_have_cosigned_it() {
    // The log's key is made at the first start: witnesses are set up with it, and then the policy with theirs.
    let mut stage = Stage::start();
    stage.system("one-stop-shop");
    drop(stage.gateway.take());
    let log = stage.data().join("log");
    let key = LogVerifier::parse(&std::fs::read_to_string(log.join("vkey")).unwrap()).unwrap();
    let (pki, states) = (stage.folder.path.join("pki"), tempfile::tempdir().unwrap());
    let of = |name: &str, port| config(name, &states.path().join(name), &pki, vec![key.clone()], port);
    let first = Running::start(of("w.example/dc2", 0));
    let second = Running::start(of("w.example/dc3", 0));
    let vkey = |name: &str| std::fs::read_to_string(states.path().join(name).join("vkey")).unwrap();
    let policy = format!(
        "log {key}\nwitness dc2 {} https://127.0.0.1:{}\nwitness dc3 {} https://127.0.0.1:{}\ngroup both all dc2 dc3\nquorum both\n",
        vkey("w.example/dc2"),
        first.port,
        vkey("w.example/dc3"),
        second.port
    );
    std::fs::write(stage.folder.path.join("witnesses.policy"), &policy).unwrap();
    support::edit(&stage.folder.gateway_config(), |text| {
        text.replacen("[log]\n", "[log]\nwitness_policy = \"witnesses.policy\"\nwitness_ca = \"pki/ca.pem\"\n", 1)
    });
    let loaded = ndxp_gateway::config::Config::load(&stage.folder.gateway_config()).map_err(support::show).unwrap();
    stage.gateway = Some(Gateway::start(loaded).unwrap());
    let policy = Policy::parse(&policy).unwrap();
    let published = || LogReader::open(&stage.data()).unwrap().published().unwrap();
    let size = || published().map_or(0, |published| published.size);
    exchange(&stage);
    let all = LogReader::open(&stage.data()).unwrap().size();
    until("both have cosigned", Duration::from_secs(30), || size() >= all);
    let note = published().unwrap().note;
    assert!(policy.holds(&note) && policy.cosignatures(&note).len() == 2);
    let report = verify::verify_data(&stage.data(), None, None, Default::default(), |_, _| {}).unwrap();
    assert_eq!(report.witnesses, ["dc2", "dc3"]);

    // Without one of them the log goes on, but nothing newer counts, and no receipt is made of it.
    drop(second);
    exchange(&stage);
    std::thread::sleep(Duration::from_millis(1_500));
    let reader = LogReader::open(&stage.data()).unwrap();
    assert!(reader.sealed() > size());
    assert!(Receipt::make(&reader, reader.sealed() - 1).unwrap().is_none());
    let before = Receipt::make(&reader, 0).unwrap().unwrap();
    assert!(policy.holds(&before.checkpoint) && before.verify(&key).is_ok());

    // It comes back where it was: the log resumes from the size that it tells.
    let port = policy.witnesses[1].url.as_ref().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let second = Running::start(of("w.example/dc3", port));
    until("what waited is cosigned", Duration::from_secs(30), || size() >= reader.sealed());
    let page = search::page(&reader, None, &Default::default(), None, 10, None).unwrap();
    assert!(page.found.iter().all(|one| one.entry.kind != 0));

    // A copy of the log without its cosignatures does not verify under the policy.
    std::fs::write(log.join("cosigned"), reader.note()).unwrap();
    let error = verify::verify_data(
        &stage.data(),
        None,
        Some(&key),
        Against { policy: Some(&policy), ..Against::default() },
        |_, _| {},
    )
    .unwrap_err();
    assert!(error.to_string().contains("cosignatures"), "{error}");
    drop((first, second));
}

/// A log of so many entries: its checkpoint, and the hashes of its leaves.
fn tree(salt: u8, size: u64) -> (Hash, Vec<Hash>) {
    let leaves: Vec<Hash> =
        (0..size).map(|leaf| leaf_hash(&[&[salt], leaf.to_be_bytes().as_slice()].concat())).collect();
    let mut edge = Edge::default();
    leaves.iter().for_each(|leaf| drop(edge.push(*leaf)));
    (edge.root(), leaves)
}

#[test]
fn a_witness_signs_one_history_and_no_other() {
    let state = tempfile::tempdir().unwrap();
    let signer = |origin: &str| LogSigner::from_pkcs8(origin, &LogSigner::generate().unwrap()).unwrap();
    let (log, stranger) = (signer("log.example/a"), signer("log.example/b"));
    let open = || Witness::open(&config("w.example/x", state.path(), state.path(), vec![log.verifier()], 0)).unwrap();
    let witness = open();
    let ask = |witness: &Witness, signer: &LogSigner, salt: u8, old: u64, size: u64| {
        let (root, leaves) = tree(salt, size);
        let nodes = |level: u32, at: u64| {
            let (from, to) = ((at << level) as usize, ((at + 1) << level) as usize);
            Ok(ndxp_gateway::exchange_log::tree::tree_hash(&leaves[from..to]))
        };
        let proof = if old <= size { proof::consistency(&nodes, old, size).unwrap() } else { vec![] };
        let request = AddCheckpoint { old, proof, note: signer.sign(size, &root) };
        witness.add_checkpoint(request.to_text().as_bytes(), 1_000)
    };
    let refused = |told: Told| match told {
        Told::Refused(status, _) => status,
        other => panic!("{other:?}"),
    };
    assert!(matches!(ask(&witness, &log, 0, 0, 5), Told::Cosigned(_)));
    assert!(matches!(ask(&witness, &log, 0, 5, 9), Told::Cosigned(_)));
    // The same again is signed again: the answer may have been lost.
    assert!(matches!(ask(&witness, &log, 0, 9, 9), Told::Cosigned(_)));
    // Back, another tree of the same size, a fork, an unknown log, another's key, a larger old size.
    assert_eq!(ask(&witness, &log, 0, 5, 9), Told::Conflict(9));
    assert_eq!(ask(&witness, &log, 1, 9, 9), Told::Conflict(9));
    assert_eq!(refused(ask(&witness, &log, 1, 9, 20)), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused(ask(&witness, &stranger, 0, 0, 3)), StatusCode::NOT_FOUND);
    assert_eq!(refused(ask(&witness, &signer("log.example/a"), 0, 9, 20)), StatusCode::FORBIDDEN);
    assert_eq!(refused(ask(&witness, &log, 0, 21, 20)), StatusCode::BAD_REQUEST);
    assert_eq!(refused(witness.add_checkpoint(b"\xff", 0)), StatusCode::BAD_REQUEST);
    // It knows after a restart; and it does not begin anew where it cannot read what it signed.
    let (witness, file) = (open(), std::fs::read_dir(state.path()).unwrap());
    assert_eq!(ask(&witness, &log, 1, 0, 9), Told::Conflict(9));
    assert!(matches!(ask(&witness, &log, 0, 9, 700), Told::Cosigned(_)));
    let file =
        file.map(|file| file.unwrap().path()).find(|file| file.extension().is_some_and(|end| end == "checkpoint"));
    support::edit(&file.unwrap(), |text| text.replacen('7', "8", 1));
    assert!(Witness::open(&config("w.example/x", state.path(), state.path(), vec![log.verifier()], 0)).is_err());
}

/// A witness asks nobody who he is, so silence must not keep its places.
#[test]
fn who_says_nothing_to_a_witness_is_cut_off() {
    let (_dir, folder) = support::lay(&|_| {});
    let (pki, state) = (folder.path.join("pki"), tempfile::tempdir().unwrap());
    let witness = Running::start(config("w.example/dc2", state.path(), &pki, vec![], 0));
    let connect = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(format!("127.0.0.1:{}", witness.port).parse().unwrap()).await.unwrap();
        support::secured(stream, &pki.join("ca.pem"), None, &[b"http/1.1"]).await
    };
    let silent = async |sent: &[u8]| {
        let mut stream = connect("127.0.0.1").await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream.flush().await.unwrap();
        let until_end = async { while let Ok(1..) = stream.read(&mut [0; 1_024]).await {} };
        tokio::time::timeout(Duration::from_secs(20), until_end).await.expect("it is still open");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let http2 = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
        tokio::join!(silent(b""), silent(b"POST /add-che"), silent(&http2));
        // However many one address has, another one is served.
        let mut kept = Vec::new();
        while let Ok(stream) = connect("127.0.0.1").await {
            kept.push(stream);
        }
        assert_eq!(kept.len(), 32);
        let mut other = connect("127.0.0.2").await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        other.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 404");
    });
}
