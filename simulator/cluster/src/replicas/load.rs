//! How long a large registry takes: put into a real etcd, and read by a gateway that has none of it. `load ETCD CLIENTS`.

use super::operations;
use super::process::open;
use crate::cluster::EtcdMembers;
use crate::cluster::member::EtcdMember;
use crate::cluster::registry::import;
use crate::cluster::timers::RuntimeTimers;
use crate::process::channels;
use crate::real::{LIMIT, members, until};
use crate::registry::replication::{CellValue, RowChange, RowKey};
use crate::registry::{GrantFilter, Page, Store};
use std::path::Path;
use std::time::Instant;

/// Grants of each client.
const GRANTS: usize = 10;
/// Rows that are put at once.
const CHUNK: usize = 10_000;

/// Runs it, and prints the figures.
///
/// # Errors
/// What has failed.
pub fn run(program: &Path, clients: usize) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (_members, endpoints) = members(program, folder.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let all = {
        let _entered = runtime.enter();
        channels(&endpoints, 0)
    };
    let etcd = EtcdMembers::new(all.clone(), RuntimeTimers::default(), None);
    until("etcd starts", LIMIT, || runtime.block_on(crate::cluster::version::check(&etcd)).is_ok())?;
    let began = Instant::now();
    let mut rows = rows(clients).peekable();
    let (mut count, mut are_first) = (0, true);
    while rows.peek().is_some() {
        let some: Vec<RowChange> = rows.by_ref().take(CHUNK).collect();
        count += some.len();
        let put = runtime.block_on(import::import_rows(&etcd, &some, are_first));
        put.map_err(|error| error.to_string())?;
        are_first = false;
    }
    runtime.block_on(import::begin_registry(&etcd, 0xcc, 0)).map_err(|error| error.to_string())?;
    println!("{count} rows put in {:.1} s", began.elapsed().as_secs_f64());
    for (at, member) in all.iter().enumerate() {
        let status = runtime.block_on(member.status()).map_err(|error| error.to_string())?;
        println!("member {at}: {} MB in use", status.bytes_in_use >> 20);
    }
    let began = Instant::now();
    let (store, registry, _) = open(folder.path(), 0, &endpoints, &runtime)?;
    runtime.block_on(registry.refresh()).map_err(|error| error.to_string())?;
    println!("read by a gateway that has none of it in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    runtime.block_on(registry.refresh()).map_err(|error| error.to_string())?;
    println!("a refresh without news: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    let token = operations::Operation::RevokeToken { id: "t".into(), client: "client-0".into() };
    let named = store.named(operations::person("lan"), "").map_err(|error| error.to_string())?;
    token.perform(&*named).map_err(|error| error.to_string())?;
    println!("a revocation: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let page = Page { after: "", max: 100, filter: GrantFilter { state: None } };
    let found = store.grants(Some(&format!("client-{}", clients - 1)), page).map_err(|error| error.to_string())?;
    if found.len() == GRANTS { Ok(()) } else { Err(format!("the last client has {} grants", found.len())) }
}

fn rows(clients: usize) -> impl Iterator<Item = RowChange> {
    let text = |text: String| CellValue::Text(text);
    let row = |table: &str, id: String, cells: Vec<(&str, CellValue)>| RowChange {
        key: RowKey { table: table.into(), id },
        cells: Some(cells.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect()),
    };
    let number = CellValue::Integer;
    let client = move |at: usize| {
        let (id, name) = (format!("client-{at}"), format!("client-{at}.tinh.example.vn"));
        let cells = vec![
            ("id", text(id.clone())),
            ("agency", text("H49.12".into())),
            ("contact", text("02033 825 566".into())),
            ("names", text(format!("[\"{name}\"]"))),
            ("suspended", number(0)),
            ("created", number(1_795_000_000)),
            ("retired", number(0)),
            ("tokens_from", number(0)),
        ];
        let identity = vec![("name", text(name.clone())), ("kind", text("client".into())), ("id", text(id.clone()))];
        let grant = move |of: usize| {
            let grant = format!("g-{at:024}{of:08}");
            let cells = vec![
                ("id", text(grant.clone())),
                ("client", text(id.clone())),
                ("scopes", text("[\"population:read\",\"insurance:read\"]".into())),
                ("purposes", text("[\"procedure:1.004222\",\"dossier:H49.12\"]".into())),
                ("fields", text("[\"person.name\",\"person.birth\",\"person.address\"]".into())),
                ("rate", number(10)),
                ("burst", number(20)),
                ("daily_quota", number(10_000)),
                ("not_before", number(0)),
                ("not_after", number(1 << 40)),
                ("legal_basis", text("Nghị định 278/2025/NĐ-CP".into())),
                ("networks", text("[]".into())),
                ("requested_by", text("staff:lan".into())),
                ("approved_by", text("staff:minh".into())),
                ("needs_approval", number(1)),
                ("withdrawn", number(0)),
                ("requester", text("{\"kind\":\"staff\",\"id\":\"lan\"}".into())),
            ];
            row("grants", grant, cells)
        };
        [row("clients", format!("client-{at}"), cells), row("identities", name, identity)]
            .into_iter()
            .chain((0..GRANTS).map(grant))
    };
    (0..clients).flat_map(client)
}
