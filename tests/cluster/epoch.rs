//! The next epoch after a restore of etcd: what was sealed and decided after the copy comes back from a site, by two people.

use crate::migrate::{Folders, client, clients, has_once};
use crate::support::{lay, show};
use ndxp_gateway::cluster::member::{KeyValue, RangeRead, Txn, TxnOperation};
use ndxp_gateway::config::Config;
use ndxp_gateway::exchange_log::reader::LogReader;
use ndxp_gateway::identity::tls::TlsAcceptors;
use ndxp_gateway::migration::{MigrationError, StaffKey};
use ndxp_gateway::pki::{CertificateRole, DEFAULT_DAYS, TRUST_DOMAIN};
use ndxp_gateway::registry::{Role, Staff, Store};
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::server::check_tls;
use std::path::PathBuf;

/// The people, with certificates of a CA that the gateway trusts, and one that it does not.
struct People {
    folder: DevFolder,
    stranger: DevFolder,
    trust: TlsAcceptors,
    _dirs: [tempfile::TempDir; 2],
}

impl People {
    fn of(folders: &Folders) -> Self {
        let person = |id: &str, roles: &[Role]| Staff {
            id: id.into(),
            roles: roles.to_vec(),
            names: vec![format!("spiffe://{TRUST_DOMAIN}/staff/{id}")],
        };
        let store = folders.store(0);
        let (lan, minh) = (person("lan", &[Role::Administrator]), person("minh", &[Role::Approver]));
        store.bootstrap(&lan, &minh).unwrap();
        // Of both roles, which takes approvals that are not the matter here.
        let file = rusqlite::Connection::open(store.path()).unwrap();
        file.execute("UPDATE staff SET roles = '[\"administrator\",\"approver\"]' WHERE id = 'lan'", []).unwrap();
        let ((one, folder), (other, stranger)) = (lay(&|_| {}), lay(&|_| {}));
        for id in ["lan", "minh", "nobody"] {
            folder.pki().issue(id, &CertificateRole::Staff(id.into()), DEFAULT_DAYS).unwrap();
        }
        stranger.pki().issue("lan", &CertificateRole::Staff("lan".into()), DEFAULT_DAYS).unwrap();
        let trust = check_tls(&Config::load(&folder.gateway_config()).map_err(show).unwrap()).unwrap();
        People { folder, stranger, trust, _dirs: [one, other] }
    }

    fn with<T>(&self, folder: &DevFolder, id: &str, work: impl FnOnce(&StaffKey<'_>) -> T) -> T {
        let file = |end: &str| -> PathBuf { folder.path.join(format!("pki/{id}.{end}")) };
        let (certificate, key) = (file("pem"), file("key"));
        work(&StaffKey { certificate: &certificate, key: &key, trust: &self.trust })
    }

    fn request(&self, folders: &Folders, id: &str, why: &str) -> Result<u64, String> {
        self.request_from(folders, &self.folder, id, why)
    }

    fn request_from(&self, folders: &Folders, folder: &DevFolder, id: &str, why: &str) -> Result<u64, String> {
        self.with(folder, id, |person| {
            let requested = folders.migrate(0, async |gateway| gateway.request_epoch(person, why).await);
            requested
                .map(|(plan, by)| {
                    assert_eq!(by, id);
                    plan.epoch
                })
                .map_err(|error| error.to_string())
        })
    }

    fn approve(&self, folders: &Folders, at: usize, id: &str) -> Result<u64, MigrationError> {
        self.with(&self.folder, id, |person| {
            folders.migrate(at, async |gateway| gateway.approve_epoch(person).await).map(|(plan, _)| plan.size)
        })
    }
}

/// Everything in etcd.
fn copy(folders: &Folders) -> Vec<KeyValue> {
    let all = RangeRead { from: b"!".to_vec(), end: b"~".to_vec(), ..RangeRead::default() };
    folders.runtime.block_on(folders.members.range(&all)).unwrap().entries
}

fn restore(folders: &Folders, copy: &[KeyValue]) {
    folders.empty_etcd();
    for some in copy.chunks(100) {
        let put = |one: &KeyValue| TxnOperation::Put(one.key.clone(), one.value.clone(), 0);
        let then = some.iter().filter(|one| one.lease == 0).map(put).collect();
        folders.runtime.block_on(folders.members.settle(&Txn { then, ..Txn::default() })).unwrap();
    }
}

#[test]
fn two_people_begin_the_next_epoch_and_what_the_copy_lacks_comes_back() {
    let Some(folders) = Folders::start() else { return };
    let mut texts = folders.append_alone("alone", 50);
    let people = People::of(&folders);
    folders.begin(0).unwrap();
    texts.extend(folders.append_together("together", 12));
    folders.replica(1).add_client(&client("before")).unwrap();
    folders.replica(2);
    let old = copy(&folders);
    folders.replica(1).add_client(&client("after")).unwrap();
    texts.extend(folders.append_together("after the copy", 12));
    assert_eq!(clients(&folders.replica(0)), ["after", "before"]);
    restore(&folders, &old);
    let refused = folders.site(0).err().unwrap().to_string();
    assert!(refused.contains("ETCD_ROLLED_BACK"), "{refused}");

    // Who may request, and what is a request.
    for (id, why, what) in [
        ("lan", "", "give a reason"),
        ("minh", "the copy", "minh is not Administrator"),
        ("nobody", "the copy", "not that of a member of staff"),
    ] {
        let refused = people.request(&folders, id, why).unwrap_err();
        assert!(refused.contains(what), "{id}: {refused}");
    }
    let refused = people.request_from(&folders, &people.stranger, "lan", "the copy").unwrap_err();
    assert!(refused.contains("the certificate is refused"), "{refused}");
    let refused = people.approve(&folders, 0, "minh").unwrap_err().to_string();
    assert!(refused.contains("no epoch was requested"), "{refused}");
    assert_eq!(people.request(&folders, "lan", "restored, document 118").unwrap(), 1);
    let refused = people.approve(&folders, 0, "lan").unwrap_err().to_string();
    assert!(refused.contains("another person approves"), "{refused}");
    // A folder that has another view, and a request that etcd has changed.
    let refused = people.approve(&folders, 2, "minh").unwrap_err().to_string();
    assert!(refused.contains("was requested at dc0"), "{refused}");
    let request = copy(&folders).into_iter().find(|one| one.key == b"epoch/request").unwrap();
    let changed = String::from_utf8(request.value.clone()).unwrap().replace("document 118", "document 119");
    let put = |value: Vec<u8>| {
        let then = vec![TxnOperation::Put(b"epoch/request".to_vec(), value, 0)];
        folders.runtime.block_on(folders.members.settle(&Txn { then, ..Txn::default() })).unwrap();
    };
    put(changed.into_bytes());
    let refused = people.approve(&folders, 0, "minh").unwrap_err().to_string();
    assert!(refused.contains("the signature is not by the certificate"), "{refused}");
    put(request.value);

    let size = people.approve(&folders, 0, "minh").unwrap();
    println!("epoch 1 from {size} entries");
    texts.extend(folders.append_together("in the next epoch", 12));
    for at in 0..3 {
        has_once(&folders.data(at), &texts);
        assert_eq!(clients(&folders.replica(at)), ["after", "before"]);
    }
    folders.replica(2).add_client(&client("last")).unwrap();
    assert_eq!(clients(&folders.replica(0)), ["after", "before", "last"]);

    // Each gateway has said so.
    let mut entered = Vec::new();
    let visit = LogReader::sealed_only(&folders.data(1)).unwrap().newest_first(u64::MAX, |one| {
        if one.entry.event == "cluster.epoch.enter" {
            let entry = one.entry;
            entered.push([entry.node, entry.object, entry.actor, entry.approved_by, entry.justification].join(" "));
        }
        true
    });
    visit.unwrap();
    entered.sort();
    let entry = |node: &str| format!("{node} epoch:1 staff:lan staff:minh restored, document 118");
    assert_eq!(entered, [entry("dc0"), entry("dc1"), entry("dc2")]);
}
