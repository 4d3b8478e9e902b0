//! What cannot be undone says first what it stops: `--dry-run` changes nothing, and a script is not asked. `tests/python/test_admin.py`
//! answers at a terminal.

use crate::command_line::{fails, ok};
use crate::support::Stage;
use serde_json::Value;

#[test]
fn a_dry_run_says_what_would_stop_and_changes_nothing() {
    let stage = Stage::start();
    stage.system("one-stop-shop");
    let folder = &stage.folder.path;
    let json = |args: &[&str]| -> Value {
        let whole = [&["--output", "json"][..], args].concat();
        serde_json::from_str(&ok(&whole, folder)).unwrap()
    };
    let id = |listed: &Value, name: &str| listed[0][name].as_str().unwrap().to_owned();
    let (token, grant) = (id(&json(&["token", "list"]), "id"), id(&json(&["grant", "list"]), "id"));
    let key = id(&json(&["keys", "list"]), "kid");
    let acts: [&[&str]; 5] = [
        &["token", "revoke", &token],
        &["token", "revoke", "--client", "one-stop-shop"],
        &["grant", "withdraw", &grant],
        &["keys", "retire", &key],
        &["client", "retire", "one-stop-shop"],
    ];
    let state =
        || [json(&["token", "list"]), json(&["grant", "list"]), json(&["keys", "list"]), json(&["client", "list"])];
    let before = state();
    for act in acts {
        let told = ok(&[act, &["--dry-run"]].concat(), folder);
        assert!(told.contains("would ") && told.contains("nothing was changed"), "{act:?}: {told}");
        let told = json(&[act, &["--dry-run"]].concat());
        assert!(told["dry_run"] == true && !told["stops"].as_array().unwrap().is_empty(), "{act:?}: {told}");
    }
    let told = ok(&["client", "retire", "one-stop-shop", "--dry-run"], folder);
    assert!(told.contains("1 token in force") && told.contains("1 grant in force"), "{told}");
    assert!(fails(&["client", "retire", "nobody", "--dry-run"], folder, 1).contains("OBJECT_UNKNOWN"));
    assert_eq!(state(), before);
    // Without it, and without a terminal, it is done at once.
    ok(&["token", "revoke", &token], folder);
    assert_eq!(json(&["token", "list"])[0]["revoked"], true);
}
