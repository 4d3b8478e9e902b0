//! A registry with any number of clients.

use ndxp_gateway::contract::ContractSet;
use ndxp_gateway::registry::sqlite::SqliteStore;
use ndxp_gateway::server::registry_path;
use std::path::Path;

/// Grants per client.
pub const GRANTS: usize = 10;

/// That many clients with 10 grants each; the lists are as varied as a province's.
pub fn fill(data: &Path, clients: usize) -> SqliteStore {
    let store = SqliteStore::open(&registry_path(data)).unwrap();
    let sql = rusqlite::Connection::open(registry_path(data)).unwrap();
    let contracts = ContractSet::embedded().unwrap();
    let mut scopes: Vec<String> = contracts.operations().iter().map(|operation| operation.scope.clone()).collect();
    scopes.sort();
    scopes.dedup();
    let scopes = serde_json::to_string(&scopes[..GRANTS]).unwrap();
    sql.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < {last})
         INSERT INTO clients (id, agency, contact, names, suspended, created)
         SELECT printf('client-%06d', i), 'H49.12', '02033 825 566',
                json_array(printf('spiffe://ndxp.quangninh.gov.vn/client/client-%06d', i)), 0, 1 FROM n;
         INSERT INTO identities SELECT json_extract(names, '$[0]'), 'client', id FROM clients;
         WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < {last_grant})
         INSERT INTO grants
         SELECT printf('g-%032d', i), printf('client-%06d', i / {GRANTS}),
                json_array(json_extract('{scopes}', '$[' || (i % {GRANTS}) || ']')),
                json_array('dossier:H49.' || (i % 99), 'procedure:1.004222'), json_array('name', 'field_' || (i % 997)),
                1000000, 1000000, 0, 0, 99999999999, 'Nghị định 278/2025/NĐ-CP', '[]', 'staff:lan', 'staff:minh', 1, 0, '' FROM n;
         COMMIT;",
        last = clients - 1,
        last_grant = clients * GRANTS - 1,
    ))
    .unwrap();
    store
}
