//! Witnesses in other data centres: a checkpoint counts when enough of them have signed that the log only grew.

use crate::support::witness::{RunningWitness, config, log_signer, with_policy};
use crate::support::{Stage, UNIT, audit_cli, until};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use ndxp_gateway::audit::search;
use ndxp_gateway::exchange_log::checkpoint::LogVerifier;
use ndxp_gateway::exchange_log::cosignature::{Policy, plausible_times};
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::exchange_log::receipt::Receipt;
use ndxp_gateway::exchange_log::tree::{Edge, Hash, leaf_hash};
use ndxp_gateway::exchange_log::verify::{Against, LogFiles, LogFolder};
use ndxp_gateway::exchange_log::{LogError, checkpoint::LogSigner, proof, verify};
use ndxp_gateway::identity::tls;
use ndxp_gateway::registry::now;
use ndxp_gateway::witness::alarm;
use ndxp_gateway::witness::request::AddCheckpoint;
use ndxp_gateway::witness::server::{WitnessResponse, WitnessService};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) fn exchange(stage: &Stage) {
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
    let first = RunningWitness::start(of("w.example/dc2", 0));
    let second = RunningWitness::start(of("w.example/dc3", 0));
    // One is known by its ML-DSA-44 key, the other by its Ed25519 key.
    let vkey = |name: &str| {
        let keys = std::fs::read_to_string(states.path().join(name).join("vkey")).unwrap();
        keys.lines().nth(usize::from(name.ends_with('3'))).unwrap().to_owned()
    };
    let policy = format!(
        "log {key}\nwitness dc2 {} https://127.0.0.1:{}\nwitness dc3 {} https://127.0.0.1:{}\ngroup both all dc2 dc3\nquorum both\n",
        vkey("w.example/dc2"),
        first.port,
        vkey("w.example/dc3"),
        second.port
    );
    with_policy(&mut stage, &policy);
    let policy = Policy::parse(&policy).unwrap();
    let published = || LogReader::open(&stage.data()).unwrap().published().unwrap();
    let size = || published().map_or(0, |published| published.size);
    exchange(&stage);
    let all = LogReader::open(&stage.data()).unwrap().size();
    until("both have cosigned", || size() >= all);
    let note = published().unwrap().note;
    let times = plausible_times(0, ndxp_gateway::registry::now());
    assert_eq!(policy.quorum(&note, &times).unwrap().unwrap().len(), 2);
    let report = verify::verify_data(&stage.data(), None, None, Default::default(), |_, _| {}).unwrap();
    let cosigned = report.cosigned.unwrap();
    assert_eq!(cosigned.witnesses, ["dc2", "dc3"]);
    assert!((all..=size()).contains(&cosigned.size), "{}", cosigned.size);

    // Without one of them the log continues, but nothing newer counts, and there is no receipt for it.
    drop(second);
    exchange(&stage);
    let signed_by_first = || {
        let files = std::fs::read_dir(states.path().join("w.example/dc2")).unwrap().map(|file| file.unwrap().path());
        let mut notes = files.filter(|file| file.extension().is_some_and(|end| end == "checkpoint"));
        let note = notes.next().map(|file| std::fs::read_to_string(file).unwrap()).unwrap_or_default();
        note.lines().nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or_default()
    };
    until("the other one has cosigned more", || signed_by_first() > size());
    // The gateway publishes what counts as soon as it has the cosignature.
    std::thread::sleep(Duration::from_millis(500));
    let reader = LogReader::open(&stage.data()).unwrap();
    assert!(signed_by_first() > size());
    assert!(Receipt::make(&reader, reader.sealed() - 1).unwrap().is_none());
    let before = Receipt::make(&reader, 0).unwrap().unwrap();
    assert!(policy.quorum(&before.checkpoint, &times).unwrap().is_some() && before.verify(&key).is_ok());

    // It returns with its old state: the log resumes from the size that it reports.
    let port = policy.witnesses[1].url.as_ref().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let second = RunningWitness::start(of("w.example/dc3", port));
    until("what waited is cosigned", || size() >= reader.sealed());
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

/// A log with that many entries: its checkpoint, and the hashes of its leaves.
pub(crate) fn tree(salt: u8, size: u64) -> (Hash, Vec<Hash>) {
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
    let of = || config("w.example/x", state.path(), state.path(), vec![log.verifier()], 0);
    let error = WitnessService::open(&of()).err().unwrap().to_string();
    assert!(error.contains("witness --key"), "a key is made by the command for it: {error}");
    WitnessService::make_keys(&of()).unwrap();
    let open = || WitnessService::open(&of()).unwrap();
    let witness = open();
    let ask = |witness: &WitnessService, signer: &LogSigner, salt: u8, old: u64, size: u64| {
        let (root, leaves) = tree(salt, size);
        let nodes = |level: u32, at: u64| {
            let (from, to) = ((at << level) as usize, ((at + 1) << level) as usize);
            Ok(ndxp_gateway::exchange_log::tree::tree_hash(&leaves[from..to]))
        };
        let proof = if old <= size { proof::consistency(&nodes, old, size).unwrap() } else { vec![] };
        let request = AddCheckpoint { old, proof, note: signer.sign(size, &root) };
        witness.add_checkpoint(request.to_text().as_bytes(), 1_000)
    };
    let refused = |told: WitnessResponse| match told {
        WitnessResponse::Refused(status, _) => status,
        other => panic!("{other:?}"),
    };
    assert!(matches!(ask(&witness, &log, 0, 0, 5), WitnessResponse::Cosigned(_)));
    assert!(matches!(ask(&witness, &log, 0, 5, 9), WitnessResponse::Cosigned(_)));
    // A repeated request is signed again: the response may have been lost.
    assert!(matches!(ask(&witness, &log, 0, 9, 9), WitnessResponse::Cosigned(_)));
    // Back, another tree of the same size, a fork, an unknown log, another's key, a larger old size.
    assert_eq!(ask(&witness, &log, 0, 5, 9), WitnessResponse::Conflict(9));
    assert_eq!(refused(ask(&witness, &log, 1, 9, 9)), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused(ask(&witness, &log, 1, 9, 20)), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused(ask(&witness, &stranger, 0, 0, 3)), StatusCode::NOT_FOUND);
    assert_eq!(refused(ask(&witness, &signer("log.example/a"), 0, 9, 20)), StatusCode::FORBIDDEN);
    assert_eq!(refused(ask(&witness, &log, 0, 21, 20)), StatusCode::BAD_REQUEST);
    assert_eq!(refused(witness.add_checkpoint(b"\xff", 0)), StatusCode::BAD_REQUEST);
    // It remembers after a restart; and it does not start again if it cannot read what it signed.
    let (witness, file) = (open(), std::fs::read_dir(state.path()).unwrap());
    assert_eq!(ask(&witness, &log, 1, 0, 9), WitnessResponse::Conflict(9));
    assert!(matches!(ask(&witness, &log, 0, 9, 700), WitnessResponse::Cosigned(_)));
    let file =
        file.map(|file| file.unwrap().path()).find(|file| file.extension().is_some_and(|end| end == "checkpoint"));
    crate::support::edit(&file.unwrap(), |text| text.replacen('7', "8", 1));
    assert!(WitnessService::open(&of()).is_err());
}

#[test]
fn w_a_witness_follows_the_specification_exactly() {
    let state = tempfile::tempdir().unwrap();
    let signer = |origin: &str| LogSigner::from_pkcs8(origin, &LogSigner::generate().unwrap()).unwrap();
    // Two keys of one log, as during a key change; and one whose empty tree is witnessed.
    let (old, new, empty) = (signer("log.example/a"), signer("log.example/a"), signer("log.example/empty"));
    let logs = [&old, &new, &empty].map(LogSigner::verifier).into();
    let of = config("w.example/x", state.path(), state.path(), logs, 0);
    WitnessService::make_keys(&of).unwrap();
    let witness = WitnessService::open(&of).unwrap();
    let ask = |old: u64, proof: Vec<Hash>, note: String| {
        witness.add_checkpoint(AddCheckpoint { old, proof, note }.to_text().as_bytes(), 1_000)
    };
    let status = |told: WitnessResponse| match told {
        WitnessResponse::Refused(status, _) => status.as_u16(),
        WitnessResponse::Conflict(_) => 409,
        WitnessResponse::Cosigned(lines) => {
            assert_eq!(lines.lines().count(), 2, "ML-DSA-44 and Ed25519");
            200
        }
    };
    let zeros = |size| ask(0, vec![], empty.sign(size, &[0; 32]));
    assert_eq!(status(zeros(0)), 422, "a root of zeros is no empty tree");
    let none = Edge::default().root();
    assert_eq!(status(ask(0, vec![[1; 32]], empty.sign(0, &none))), 422, "a proof from nothing is empty");
    assert_eq!(status(ask(0, vec![], empty.sign(0, &none))), 200);
    assert_eq!(status(ask(0, vec![], empty.sign(3, &tree(0, 3).0))), 200);
    // Either key of the origin, and both.
    let root = tree(0, 5).0;
    assert_eq!(status(ask(0, vec![], new.sign(5, &root))), 200);
    assert_eq!(status(ask(5, vec![], old.sign(5, &root))), 200);
    let both = format!("{}{}", old.sign(5, &root), new.sign(5, &root).rsplit_once("\n\n").unwrap().1);
    assert_eq!(status(ask(5, vec![], both.clone())), 200);
    // A line under a known key that does not verify invalidates the whole note.
    let other = new.sign(6, &root);
    let spoiled = format!("{}{}", old.sign(5, &root), other.rsplit_once("\n\n").unwrap().1);
    assert_eq!(status(ask(5, vec![], spoiled)), 403);
    assert_eq!(status(ask(5, vec![], both.trim_end().to_owned())), 400, "without its final newline it is no note");
    assert_eq!(status(ask(5, vec![], both.replace('\n', "\r\n"))), 400);
    // Two trees of one size: refused, and the proof is saved.
    assert_eq!(status(ask(5, vec![], old.sign(5, &[9; 32]))), 422);
    let forks = std::fs::read_dir(state.path()).unwrap().filter_map(Result::ok);
    let forks: Vec<_> = forks.filter(|file| file.path().extension().is_some_and(|end| end == "fork")).collect();
    assert_eq!(forks.len(), 1);
    assert!(old.verifier().check(&std::fs::read_to_string(forks[0].path()).unwrap()).is_ok());
}

#[test]
fn w_a_fork_that_a_witness_has_seen_is_an_alarm_until_a_person_acknowledges_it() {
    let mut stage = Stage::start();
    stage.system("one-stop-shop");
    exchange(&stage);
    drop(stage.gateway.take());
    let signer = log_signer(&stage);
    let state = tempfile::tempdir().unwrap();
    let of = config("w.example/dc2", state.path(), &stage.folder.path.join("pki"), vec![signer.verifier()], 0);
    // The log's key signs another tree of two entries for the witness, as a forked copy of the gateway would.
    WitnessService::make_keys(&of).unwrap();
    let other = AddCheckpoint { old: 0, proof: vec![], note: signer.sign(2, &tree(7, 2).0) };
    let told = WitnessService::open(&of).unwrap().add_checkpoint(other.to_text().as_bytes(), now().unsigned_abs());
    assert!(matches!(told, WitnessResponse::Cosigned(_)), "{told:?}");
    let witness = RunningWitness::start(of);
    let vkey = std::fs::read_to_string(state.path().join("vkey")).unwrap();
    let vkey = vkey.lines().next().unwrap();
    with_policy(&mut stage, &format!("witness dc2 {vkey} https://127.0.0.1:{}\nquorum dc2\n", witness.port));
    until("the alarm stands", || alarm::read(&stage.data()).is_some());
    let standing = alarm::read(&stage.data()).unwrap();
    assert_eq!(standing.witness, "dc2");
    let evidence = standing.evidence.expect("the witness shows what it has cosigned");
    assert_eq!(signer.verifier().check(&evidence).unwrap().size, 2);
    let ready = crate::support::ops_text(&stage, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("FORK") && ready.contains("dc2"), "{ready}");
    assert!(crate::support::ops_text(&stage, "/metrics").contains("ndxp_log_fork_alarm 1"));
    // It survives a restart, and every audit command reports it.
    drop(stage.gateway.take());
    drop(witness);
    let audit = |arguments: &[&str]| audit_cli(&stage, arguments);
    for command in [&["search"][..], &["show", "0"], &["verify"], &["index"]] {
        let (_, _, told) = audit(command);
        assert!(told.contains("FORK"), "{command:?}: {told}");
    }
    let (_, status, _) = audit(&["status"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let id = status["alarms"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(status["alarms"][0]["evidence"], evidence);
    assert!(!audit(&["acknowledge", "fork-dc2-1", "--reason", "x"]).0, "another alarm's id");
    assert!(!audit(&["acknowledge", &id, "--reason", " "]).0, "without a reason");
    assert!(alarm::read(&stage.data()).is_some());
    assert!(audit(&["acknowledge", &id, "--reason", "bản sao thử nghiệm đã ký nhầm"]).0);
    assert!(alarm::read(&stage.data()).is_none());
    assert!(!audit(&["search"]).2.contains("FORK"));
    // The reason is in the log with the next start.
    with_policy(&mut stage, "quorum none\n");
    let acknowledged = || stage.entries().into_iter().find(|one| one.entry.event == "audit.acknowledge");
    until("it is in the log", || acknowledged().is_some());
    let entry = acknowledged().unwrap().entry;
    assert!(entry.object.contains(&id) && entry.justification == "bản sao thử nghiệm đã ký nhầm", "{entry:?}");
}

/// A scripted witness: the number of the request, its body, and the response of a real witness.
struct Scripted {
    pub(crate) port: u16,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn start(
        real: WitnessService,
        pki: &Path,
        clock: Option<u64>,
        answer: impl Fn(usize, WitnessResponse) -> (StatusCode, String) + Send + Sync + 'static,
    ) -> Self {
        let config = tls::plain_server_config(&pki.join("gateway.pem"), &pki.join("gateway.key")).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let (count, real, answer) = (asked.clone(), Arc::new(real), Arc::new(answer));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let Ok(stream) = acceptor.accept(stream).await else { continue };
                    let (count, real, answer) = (count.clone(), real.clone(), answer.clone());
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (count, real, answer) = (count.clone(), real.clone(), answer.clone());
                        async move {
                            if request.method() == http::Method::GET {
                                let none = Full::new(bytes::Bytes::new());
                                return http::Response::builder().status(404).body(none);
                            }
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let number = count.fetch_add(1, Ordering::SeqCst);
                            let time = clock.unwrap_or(now().unsigned_abs());
                            let (status, text) = answer(number, real.add_checkpoint(&body, time));
                            http::Response::builder().status(status).body(Full::new(text.into()))
                        }
                    });
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
                    tokio::spawn(served);
                }
            });
        });
        Scripted { port, asked }
    }
}

fn plain(told: WitnessResponse) -> (StatusCode, String) {
    match told {
        WitnessResponse::Cosigned(lines) => (StatusCode::OK, lines),
        WitnessResponse::Conflict(size) => (StatusCode::CONFLICT, format!("{size}\n")),
        WitnessResponse::Refused(status, why) => (status, why.into()),
    }
}

/// A stage whose only witness follows this script.
fn scripted(
    answer: impl Fn(usize, WitnessResponse) -> (StatusCode, String) + Send + Sync + 'static,
) -> (Stage, Scripted) {
    scripted_at(None, answer)
}

/// The same with a fixed clock of the witness.
fn scripted_at(
    clock: Option<u64>,
    answer: impl Fn(usize, WitnessResponse) -> (StatusCode, String) + Send + Sync + 'static,
) -> (Stage, Scripted) {
    let mut stage = Stage::start();
    stage.system("one-stop-shop");
    exchange(&stage);
    drop(stage.gateway.take());
    let pki = stage.folder.path.join("pki");
    let of = config("w.example/x", &stage.folder.path.join("witness"), &pki, vec![log_signer(&stage).verifier()], 0);
    WitnessService::make_keys(&of).unwrap();
    let real = WitnessService::open(&of).unwrap();
    let vkey = real.vkeys().remove(0);
    let scripted = Scripted::start(real, &pki, clock, answer);
    with_policy(&mut stage, &format!("witness x {vkey} https://127.0.0.1:{}\nquorum x\n", scripted.port));
    (stage, scripted)
}

pub(crate) fn cosigned(stage: &Stage) -> u64 {
    LogReader::open(&stage.data()).unwrap().published().unwrap().map_or(0, |published| published.size)
}

#[test]
fn w_one_wrong_response_does_not_end_a_witness_and_a_failing_one_has_a_backoff() {
    // First sizes that the witness has never cosigned, then a refusal; finally a valid cosignature.
    let wrong = |number: usize, told: WitnessResponse| match number {
        0 => (StatusCode::CONFLICT, "18446744073709551615\n".into()),
        1 => (StatusCode::CONFLICT, "999999999\n".into()),
        2 => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        _ => plain(told),
    };
    let (stage, witness) = scripted(wrong);
    let began = std::time::Instant::now();
    until("it cosigns", || cosigned(&stage) > 0);
    // Three failures, each with a longer pause behind it: 1, 2 and 4 s.
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(witness.asked.load(Ordering::SeqCst) <= 8, "{:?}", witness.asked);
    assert!(alarm::read(&stage.data()).is_none(), "one claim is no alarm");
    let metrics = crate::support::ops_text(&stage, "/metrics");
    assert!(metrics.contains("ndxp_witness_up{witness=\"x\"} 1"), "{metrics}");
    assert!(metrics.contains("ndxp_witness_failures_total{witness=\"x\"} 3"), "{metrics}");
}

#[test]
fn w_a_cosignature_with_a_wrong_time_does_not_count() {
    // The witness's clock is 1,000 seconds after 1970.
    let (stage, witness) = scripted_at(Some(1_000), |_, told| plain(told));
    until("it was asked", || witness.asked.load(Ordering::SeqCst) > 1);
    assert_eq!(cosigned(&stage), 0);
    let report = verify::verify_data(&stage.data(), None, None, Default::default(), |_, _| {});
    assert!(report.unwrap_err().to_string().contains("cosignatures"));
}

#[test]
fn l8_cosigned_and_only_signed_entries_are_distinguished_and_the_lag_is_bounded() {
    let (stage, _witness) = scripted(|number, told| match number {
        0 => plain(told),
        _ => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
    });
    until("it cosigns", || cosigned(&stage) > 0);
    let first = cosigned(&stage);
    std::thread::sleep(Duration::from_secs(2));
    exchange(&stage);
    until("more is sealed", || LogReader::open(&stage.data()).unwrap().sealed() > first);
    let verify = |most: Duration| {
        let against = Against { max_lag: Some(most), ..Against::default() };
        verify::verify_data(&stage.data(), None, None, against, |_, _| {})
    };
    let report = verify(Duration::from_secs(3_600)).unwrap();
    let cosigned = report.cosigned.unwrap();
    assert_eq!(cosigned.size, first);
    assert!(report.sealed > first && cosigned.root != report.root);
    exchange(&stage);
    std::thread::sleep(Duration::from_secs(2));
    exchange(&stage);
    until("a lag is a failure", || {
        verify(Duration::from_secs(1)).is_err_and(|error| error.to_string().contains("--max-lag"))
    });
}

/// A log that was sealed, and cosigned, behind somebody who has read its checkpoint.
struct Growing {
    before: LogFolder,
    after: LogFolder,
    is_read: AtomicBool,
}

impl LogFiles for Growing {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let is_later = self.is_read.load(Ordering::Relaxed) && name == "cosigned";
        self.is_read.fetch_or(name == "checkpoint", Ordering::Relaxed);
        if is_later { self.after.read(name) } else { self.before.read(name) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.before.path(name)
    }
}

/// Earlier, this was reported as a checkpoint of another tree.
#[test]
fn a_log_that_is_cosigned_while_it_is_verified_is_not_taken_for_another_one() {
    let (mut stage, _witness) = scripted(|_, told| plain(told));
    until("it cosigns", || cosigned(&stage) > 0);
    let copy = tempfile::tempdir().unwrap();
    let first = cosigned(&stage);
    crate::log_faults::copy(&stage.data().join("log"), copy.path());
    exchange(&stage);
    until("it cosigns more", || cosigned(&stage) > first);
    drop(stage.gateway.take());
    let files = Growing {
        before: LogFolder::with(copy.path(), None),
        after: LogFolder::with(&stage.data().join("log"), None),
        is_read: AtomicBool::new(false),
    };
    let report = verify::verify(&files, &log_signer(&stage).verifier(), Against::default(), |_, _| {}).unwrap();
    assert_eq!(report.cosigned.unwrap().size, first);
}

/// A witness authenticates nobody, so silent connections must not take its capacity.
#[test]
fn a_silent_connection_to_a_witness_is_closed() {
    let (_dir, folder) = crate::support::lay(&|_| {});
    let (pki, state) = (folder.path.join("pki"), tempfile::tempdir().unwrap());
    let witness = RunningWitness::start(config("w.example/dc2", state.path(), &pki, vec![], 0));
    let connect = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(format!("127.0.0.1:{}", witness.port).parse().unwrap()).await.unwrap();
        crate::support::secured(stream, &pki.join("ca.pem"), None, &[b"http/1.1"]).await
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
