//! Connections to etcd's members: by TLS, with this gateway's certificate. Whoever is not let in knows that nothing was
//! carried out, and why.

use crate::etcd::{EtcdCluster, certificate};
use crate::support::{LIMIT, until};
use ndxp_gateway::cluster::ClusterError;
use ndxp_gateway::cluster::etcd::EtcdAccess;
use ndxp_gateway::cluster::member::{EtcdMember, RangeRead, Txn, TxnOperation};
use ndxp_gateway::identity::tls::client_config;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Puts a key by each of the members.
async fn put_by_each(access: &EtcdAccess) -> Vec<Result<bool, ClusterError>> {
    let put = Txn { then: vec![TxnOperation::Put(b"mark/of-a-test".to_vec(), vec![1], 0)], ..Txn::default() };
    let mut results = Vec::new();
    for member in access.channels() {
        results.push(member.transact(&put).await.map(|outcome| outcome.succeeded));
    }
    results
}

/// Says that nobody is let in, at any member, at any attempt, and for which reason. Where a busy machine does not deliver an alert in
/// time, the gateway knows no more than that the outcome is unknown: in two rounds at most.
async fn refused(access: &EtcdAccess, reason: &str) {
    let (mut rounds, mut unknown) = (0, 0);
    while rounds < 5 {
        let results = put_by_each(access).await;
        assert!(results.iter().all(Result::is_err), "{reason}: {results:?}");
        let faults = access.faults();
        let known = results.iter().all(|result| *result == Err(ClusterError::NoQuorum));
        let told = known && faults.len() == 3 && faults.iter().all(|fault| fault.contains(reason));
        (rounds, unknown) = (rounds + u32::from(told), unknown + u32::from(!told));
        assert!(unknown <= 2, "{reason}: {results:?}, {faults:?}");
    }
}

#[test]
fn whoever_is_not_let_in_knows_that_nothing_was_carried_out_and_why() {
    let Some(etcd) = EtcdCluster::start_secured() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(lets_in_nobody_else(&etcd));
}

async fn lets_in_nobody_else(etcd: &EtcdCluster) {
    // The last member may join after the others have elected.
    let (access, began) = (etcd.access(0), Instant::now());
    while put_by_each(&access).await != [Ok(true), Ok(true), Ok(true)] {
        assert!(began.elapsed() < LIMIT, "{:?}", access.faults());
    }
    assert_eq!(access.faults(), Vec::<String>::new());

    refused(&etcd.access_as(0, None), "CertificateRequired").await;
    let other = tempfile::tempdir().unwrap();
    certificate(other.path(), &["ca"]);
    certificate(other.path(), &["user", "gateway"]);
    refused(&etcd.access_as(0, Some((other.path(), "gateway"))), "alert").await;

    let own = |ca: &Path| {
        let clients = etcd.clients();
        client_config(ca, Some((&clients.join("gateway.pem"), &clients.join("gateway.key"))), &[b"h2"]).unwrap()
    };
    let urls = etcd.client_urls();
    refused(&EtcdAccess::new(&urls, Some(own(&other.path().join("ca.pem")))).unwrap(), "UnknownIssuer").await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = vec![format!("https://{closed}"); 3];
    let own_ca = etcd.clients().join("ca.pem");
    refused(&EtcdAccess::new(&nobody, Some(own(&own_ca))).unwrap(), "Connection refused").await;
    // A gateway's certificate opens no peer port.
    refused(&EtcdAccess::new(&etcd.peer_urls(), Some(own(&own_ca))).unwrap(), "UnknownIssuer").await;

    assert!(
        EtcdAccess::new(&urls, None).is_err()
            && EtcdAccess::new(&["http://127.0.0.1:1".into()], Some(own(&own_ca))).is_err()
    );
    let found = etcd.access(0).channels()[0].range(&RangeRead::key(b"mark/of-a-test")).await.unwrap();
    assert_eq!(found.entries.len(), 1);
}

/// The streams of one kind that a member has begun and not ended.
fn open_streams(etcd: &EtcdCluster, at: usize, method: &str) -> u64 {
    let mut stream = TcpStream::connect(etcd.operator_http(at)).unwrap();
    // A page in one piece.
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let count = |name: &str| -> u64 {
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(&format!("\"{method}\"")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    };
    count("grpc_server_started_total") - count("grpc_server_handled_total")
}

#[test]
fn whoever_has_waited_leaves_no_stream_behind_at_any_member() {
    let Some(etcd) = EtcdCluster::start_secured() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let member = runtime.block_on(async { etcd.access(0).channels().remove(0) });
    let (before, began) = (open_streams(&etcd, 0, "Watch"), open_streams(&etcd, 0, "LeaseKeepAlive"));
    runtime.block_on(async {
        let put = Txn { then: vec![TxnOperation::Put(b"mark/of-a-test".to_vec(), vec![1], 0)], ..Txn::default() };
        let revision = member.transact(&put).await.unwrap().header.revision;
        let lease = member.grant_lease(Duration::from_secs(60)).await.unwrap();
        for _ in 0..50 {
            member.wait_for_change(b"mark/of-a-test", revision - 1).await.unwrap();
            // Nothing changes: whoever waits goes away.
            let nothing = member.wait_for_change(b"mark/of-a-test", revision);
            assert!(tokio::time::timeout(Duration::from_millis(5), nothing).await.is_err());
            member.renew_lease(lease).await.unwrap();
        }
    });
    until("streams end with those who have waited", || {
        // Of a connection that nobody uses, etcd ends all of them in the end.
        runtime.block_on(member.status()).unwrap();
        open_streams(&etcd, 0, "Watch") <= before && open_streams(&etcd, 0, "LeaseKeepAlive") <= began
    });
}
