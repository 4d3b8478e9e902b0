//! What a gateway may do in etcd: what it needs, and nothing that administers etcd.

use crate::etcd::{EtcdCluster, certificate};
use ndxp_gateway::cluster::ClusterError;
use ndxp_gateway::cluster::etcd::EtcdChannel;
use ndxp_gateway::cluster::member::{EtcdMember, RangeRead, Txn, TxnOperation};
use std::path::{Path, PathBuf};

/// The constants in the source that are keys, or beginnings of keys.
fn keys_of_the_source(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(keys_of_the_source(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let constants = text.lines().filter_map(|line| line.split_once(": &[u8] = b\"")?.1.strip_suffix("\";"));
            let is_key = |text: &&str| {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"-/".contains(&byte))
            };
            found.extend(constants.filter(is_key).map(str::to_owned));
        }
    }
    found
}

/// The words of `name=(…)` in the script.
fn granted(script: &str, name: &str) -> Vec<String> {
    let list = script.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("=(")?.strip_suffix(')')).unwrap();
    list.split(' ').map(str::to_owned).collect()
}

#[test]
fn the_role_of_gateways_has_the_keys_of_the_source_and_no_others() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("deploy/cluster/roles.sh")).unwrap();
    let (prefixes, keys) = (granted(&script, "prefixes"), granted(&script, "keys"));
    let folders = ["src/cluster", "src/cluster_log", "src/migration"].map(|folder| root.join(folder));
    let source: Vec<String> = folders.iter().flat_map(|folder| keys_of_the_source(folder)).collect();
    assert!(source.len() > 10, "{source:?}");
    let is_granted =
        |key: &&String| keys.contains(key) || prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()));
    assert_eq!(source.iter().filter(|key| !is_granted(key)).collect::<Vec<_>>(), Vec::<&String>::new());
    let is_used = |granted: &&String| source.iter().any(|key| key.starts_with(granted.as_str()));
    assert_eq!(
        prefixes.iter().chain(&keys).filter(|granted| !is_used(granted)).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

/// What administers etcd, or reads all of it.
const ADMINISTRATION: [&[&str]; 14] = [
    &["put", "other", "x"],
    &["get", "--prefix", ""],
    &["del", "--prefix", "m"],
    &["user", "add", "x", "--no-password"],
    &["user", "grant-role", "gateway", "root"],
    &["user", "delete", "gateway"],
    &["role", "add", "x"],
    &["role", "grant-permission", "gateway", "--prefix=true", "readwrite", ""],
    &["role", "revoke-permission", "gateway", "checkpoint"],
    &["auth", "disable"],
    &["member", "remove", "1"],
    &["member", "add", "x", "--peer-urls=https://192.0.2.1:2380"],
    &["defrag"],
    &["endpoint", "hashkv"],
];

#[test]
fn a_gateway_administers_nothing_and_a_stranger_is_told_what_is_missing() {
    let Some(etcd) = EtcdCluster::start_secured() else { return };
    for user in ["visitor", "newcomer"] {
        certificate(etcd.clients(), &["user", user]);
    }
    etcd.control("root", &["user", "add", "visitor", "--no-password"]).unwrap();
    for user in ["gateway", "visitor", "newcomer"] {
        let copy = etcd.clients().join("copy").display().to_string();
        for arguments in ADMINISTRATION.into_iter().chain([&["snapshot", "save", copy.as_str()][..]]) {
            let done = etcd.control(user, arguments);
            let refused =
                done.as_ref().is_err_and(|said| said.contains("permission denied") || said.contains("not found"));
            assert!(refused, "{user}: {arguments:?}: {done:?}");
        }
    }
    etcd.control("root", &["member", "list"]).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let member = |user| etcd.access_as(0, Some((etcd.clients(), user))).channels().remove(0);
        refused(&member("visitor")).await;
        refused(&member("newcomer")).await;
        let gateway = member("gateway");
        let read = gateway.range(&RangeRead::prefix(b"checkpoint")).await;
        assert!(matches!(read, Err(ClusterError::Refused(_))), "another key may begin like this: {read:?}");
        assert_eq!(gateway.range(&RangeRead::key(b"checkpoint")).await.unwrap().entries.len(), 1);
    });
}

/// Nothing is read, written or deleted, and the error says what to do.
async fn refused(member: &EtcdChannel) {
    let put = Txn { then: vec![TxnOperation::Put(b"mark/x".to_vec(), vec![1], 0)], ..Txn::default() };
    let delete = Txn { then: vec![TxnOperation::DeleteRange(b"mark/".to_vec(), b"mark0".to_vec())], ..Txn::default() };
    let results = [
        member.range(&RangeRead::key(b"checkpoint")).await.map(drop),
        member.transact(&put).await.map(drop),
        member.transact(&delete).await.map(drop),
    ];
    for result in results {
        assert!(
            matches!(&result, Err(ClusterError::Refused(said)) if said.contains("deploy/cluster/roles.sh")),
            "{result:?}"
        );
    }
}
