//! Connections to etcd's members: by TLS, with this gateway's certificate. Whoever is not let in knows that nothing was
//! carried out, and why.

use crate::etcd::{EtcdCluster, certificate};
use ndxp_gateway::cluster::ClusterError;
use ndxp_gateway::cluster::etcd::EtcdAccess;
use ndxp_gateway::cluster::member::{EtcdMember, RangeRead, Txn, TxnOperation};
use ndxp_gateway::identity::tls::client_config;
use std::net::TcpListener;
use std::path::Path;

/// Puts a key by each of the members.
async fn put_by_each(access: &EtcdAccess) -> Vec<Result<bool, ClusterError>> {
    let put = Txn { then: vec![TxnOperation::Put(b"mark/of-a-test".to_vec(), vec![1], 0)], ..Txn::default() };
    let mut results = Vec::new();
    for member in access.channels() {
        results.push(member.transact(&put).await.map(|outcome| outcome.succeeded));
    }
    results
}

/// Says that nobody is let in, at any member, at any attempt, and for which reason.
async fn refused(access: &EtcdAccess, reason: &str) {
    for _ in 0..5 {
        for result in put_by_each(access).await {
            assert_eq!(result, Err(ClusterError::NoQuorum), "{reason}");
        }
    }
    let faults = access.faults();
    assert!(faults.len() == 3 && faults.iter().all(|fault| fault.contains(reason)), "{reason}: {faults:?}");
}

#[test]
fn whoever_is_not_let_in_knows_that_nothing_was_carried_out_and_why() {
    let Some(etcd) = EtcdCluster::start_secured() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(lets_in_nobody_else(&etcd));
}

async fn lets_in_nobody_else(etcd: &EtcdCluster) {
    assert_eq!(put_by_each(&etcd.access(0)).await, [Ok(true), Ok(true), Ok(true)]);
    assert_eq!(etcd.access(0).faults(), Vec::<String>::new());

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
