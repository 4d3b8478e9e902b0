//! The profiles of the people who use the command line.

use super::*;

#[test]
fn profiles_are_created_used_shown_and_removed() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator"), ("hoa", "auditor")]);
    let file = desk.home.path().join("ndxp-gateway/profiles.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(desk.run(&["profile", "list"]).ok().contains("hoa"));
    assert!(desk.run(&["profile", "show", "lan"]).ok().contains("/staff/lan"));
    let listed = desk.run(&["--output", "json", "profile", "list"]).json();
    assert_eq!(listed["profiles"]["lan"]["remote"], Value::from(stage.base()));
    // Locally as long as none is in use; then by it, from any folder; what is named is stronger.
    assert!(desk.run(&["client", "add", "a", "--agency", "H49"]).err().contains("local command by "));
    desk.run(&["profile", "use", "hoa"]).ok();
    let elsewhere = |args: &[&str]| {
        let output = desk.command(args).current_dir(desk.home.path()).output().unwrap();
        Told { args: args.join(" "), output }
    };
    assert!(elsewhere(&["client", "list"]).ok().contains("H49"));
    assert!(elsewhere(&["client", "suspend", "a"]).failed(1).contains("ROLE_MISSING"));
    assert!(elsewhere(&["client", "suspend", "a", "--profile", "lan"]).ok().contains("suspended"));
    let mut other = desk.command(&["client", "resume", "a"]);
    assert!(other.env("NDXP_PROFILE", "lan").output().unwrap().status.success());
    assert!(desk.local(&["client", "suspend", "a"]).err().contains("local command by "));
    let both = desk.run(&["client", "list", "--profile", "lan", "--config", "gateway.toml"]);
    assert!(both.failed(2).contains("--profile and --config"));
    assert!(elsewhere(&["client", "list", "--profile", "nobody"]).failed(2).contains("hoa, lan"));
    assert!(desk.run(&["profile", "remove", "hoa"]).ok().contains("forgot"));
    assert!(elsewhere(&["client", "list"]).failed(2).contains("gateway.toml"));
    // What cannot work is not kept.
    let base = stage.base();
    let add = |certificate: &str, url: &str| {
        desk.run(&["profile", "add", "x", "--remote", url, "--ca", "pki/ca.pem", "--certificate", certificate])
    };
    assert!(add("pki/nobody.pem", &base).failed(2).contains("pki/nobody.pem"));
    assert!(add("pki/lan.pem", "http://localhost:1").failed(2).contains("https://HOST:PORT"));
    assert!(desk.run(&["profile", "show", "x"]).failed(2).contains("there is no profile"));
}

#[test]
fn all_errors_of_a_profile_file_are_reported_with_their_lines() {
    let stage = Stage::start();
    let desk = Desk::with(&stage, &[("lan", "administrator")]);
    let file = desk.home.path().join("ndxp-gateway/profiles.toml");
    crate::support::edit(&file, |text| {
        format!("{}\nsecret = \"x\"\n", text.replacen("remote = \"https", "remote = \"http", 1))
    });
    let told = desk.by("lan", &["client", "list"]).failed(2);
    for part in
        ["profiles.toml:2: profiles.lan.remote:", "write https://HOST:PORT", "profiles.lan.secret: is not known"]
    {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    std::fs::write(&file, "default = \n").unwrap();
    assert!(desk.run(&["client", "list"]).failed(2).contains("profiles.toml:1:"));
    // A way that needs no profile does not look at them.
    desk.local(&["client", "list"]).ok();
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(desk.run(&["profile", "list"]).failed(2).contains("chmod 600"));
    assert!(Path::new(&file).exists());
}
