//! Examples at the end of each command's `--help`. The test below parses each of them.

use clap::Command;

/// A command, and the lines of its examples without the program's name.
type Examples = (&'static str, &'static [&'static str]);

const EXAMPLES: [Examples; 87] = [
    ("demo", &["demo", "demo --stay", "demo --cluster"]),
    ("init", &["init", "init --folder ./etc --data ./data --node qn-dc1 --host gateway.example"]),
    (
        "serve",
        &[
            "serve --config /etc/ndxp/gateway.toml",
            "serve --config gateway.toml --take-over",
            "serve --config gateway.toml --take-over --cluster-begin",
        ],
    ),
    ("sandbox init", &["sandbox init --folder dev"]),
    ("sandbox samples", &["sandbox samples --config dev/sandbox.toml"]),
    ("certs init", &["certs init --folder pki"]),
    ("certs issue", &["certs issue shop --folder pki", "certs issue lan --staff --folder pki"]),
    ("certs show", &["certs show pki/shop.pem", "certs show --config gateway.toml"]),
    ("certs revoke", &["certs revoke pki/shop.pem --folder pki"]),
    ("client add", &["client add one-stop-shop --agency H49.12 --contact 'Lan, 0203 3835 123'"]),
    ("client change", &["client change one-stop-shop --contact 'Minh, 0203 3835 124'"]),
    ("client list", &["client list", "client list --unused 90d", "client list --state suspended"]),
    ("client show", &["client show one-stop-shop"]),
    ("client can-i", &["client can-i one-stop-shop PopulationService/GetCitizen --purpose 1.004222"]),
    ("client suspend", &["client suspend one-stop-shop --why 'key reported lost, ticket 118'"]),
    ("client resume", &["client resume one-stop-shop"]),
    ("client retire", &["client retire one-stop-shop --dry-run"]),
    (
        "grant add",
        &["grant add --client one-stop-shop --scope population:read --purpose procedure:1.004222 --field name \
           --legal-basis '07/2020/QĐ-TTg'"],
    ),
    ("grant approve", &["grant approve g-7f3a"]),
    ("grant list", &["grant list --client one-stop-shop", "grant list --ends-within 30d"]),
    ("grant show", &["grant show g-7f3a"]),
    ("grant change", &["grant change g-7f3a --rate 20 --valid 180d"]),
    ("grant withdraw", &["grant withdraw g-7f3a --dry-run", "grant withdraw g-7f3a --yes"]),
    ("staff bootstrap", &["staff bootstrap --administrator lan --approver minh"]),
    ("staff add", &["staff add hoa --role auditor"]),
    ("staff change", &["staff change hoa --role auditor --role operator"]),
    ("staff list", &["staff list"]),
    ("staff remove", &["staff remove hoa --dry-run"]),
    ("source check", &["source check population --profile quangninh"]),
    (
        "source notice set",
        &["source notice set land --to 2026-12-01T06:00 --vi 'Bảo trì đến 6 giờ sáng' --en 'Down until 6 a.m.'"],
    ),
    ("source notice clear", &["source notice clear land"]),
    ("source notice list", &["source notice list"]),
    ("change list", &["change list"]),
    ("change show", &["change show c-0198f3a2"]),
    ("change approve", &["change approve c-0198f3a2 --why 'checked against document 118'"]),
    ("change reject", &["change reject c-0198f3a2 --why 'the scope is too wide'"]),
    ("token issue", &["token issue --client one-stop-shop --certificate shop.pem --out shop.jwt"]),
    (
        "token fetch",
        &["token fetch --from https://gateway.example:8443 --certificate shop.pem --ca ca.pem --out shop.jwt --keep"],
    ),
    ("token list", &["token list --client one-stop-shop --state in-force"]),
    ("token show", &["token show 0198f3a2-77aa-7c11-9d6e-5a0c2f6b1e90"]),
    ("token revoke", &["token revoke 0198f3a2-77aa-7c11-9d6e-5a0c2f6b1e90", "token revoke --client shop --dry-run"]),
    ("keys init", &["keys init --config gateway.toml"]),
    ("keys seal", &["keys seal --config gateway.toml"]),
    ("keys list", &["keys list"]),
    ("keys retire", &["keys retire 5f2c81d09e7744b3a1c0e6d2b8f39471 --dry-run"]),
    ("keys rotate", &["keys rotate"]),
    ("profile add", &["profile add quangninh --remote https://gateway.example:7443 --ca ca.pem --certificate lan.pem"]),
    ("profile list", &["profile list"]),
    ("profile show", &["profile show quangninh"]),
    ("profile remove", &["profile remove quangninh"]),
    ("profile use", &["profile use quangninh"]),
    (
        "call",
        &["call BudgetUnitService/GetUnit --data '{\"unitCode\": \"1057000\"}' --to https://gateway.example:7443 \
           --ca ca.pem --certificate shop.pem --token-file shop.jwt"],
    ),
    (
        "bench",
        &["bench BudgetUnitService/GetUnit --data '{\"unitCode\": \"1057000\"}' --rate 60 --time 30s \
           --certificate shop.pem --token-file shop.jwt"],
    ),
    ("witness", &["witness --config witness.toml", "witness --config witness.toml --key"]),
    (
        "audit search",
        &[
            "audit search --client one-stop-shop --from 2026-11-01",
            "audit search --reason SCOPE_NOT_GRANTED --limit 20",
        ],
    ),
    ("audit tail", &["audit tail --source population"]),
    (
        "audit subject",
        &["audit subject 022080990129 --case 118/2026", "audit subject 022080990129 --case 118/2026 --sheet sheet.pdf"],
    ),
    ("audit report", &["audit report --from 2026-11-01 --to 2026-12-01", "audit report --html november.html"]),
    ("audit anomalies", &["audit anomalies --from 2026-11-01"]),
    ("audit review", &["audit review UNUSUAL_HOUR-b75ccc25a04809bd-2895 --reason 'month-end batch, document 118'"]),
    ("audit export", &["audit export --client one-stop-shop --from 2026-11-01 --out shop.jsonl"]),
    ("audit show", &["audit show 0198f3a2-77aa-7c11-9d6e-5a0c2f6b1e90"]),
    ("audit status", &["audit status"]),
    ("audit acknowledge", &["audit acknowledge 5f2c81 --reason 'the backup was restored, document 118'"]),
    (
        "audit verify",
        &[
            "audit verify --config gateway.toml",
            "audit verify --receipt shop.receipt",
            "audit verify --registry --index",
        ],
    ),
    ("audit prove", &["audit prove 0198f3a2-77aa-7c11-9d6e-5a0c2f6b1e90 --out shop.receipt"]),
    ("audit prune", &["audit prune --keep 730d --archive /srv/archive --dry-run"]),
    ("audit hold add", &["audit hold add --client one-stop-shop --case 118/2026"]),
    ("audit hold list", &["audit hold list"]),
    ("audit hold release", &["audit hold release 3"]),
    ("audit index", &["audit index", "audit index --rebuild"]),
    ("cluster begin", &["cluster begin --config /etc/ndxp/gateway.toml"]),
    ("cluster leave", &["cluster leave --config /etc/ndxp/gateway.toml --dry-run"]),
    (
        "cluster epoch",
        &[
            "cluster epoch --request --certificate lan.pem --why 'etcd was restored from the copy of 3 May, document 118'",
            "cluster epoch --approve --certificate minh.pem",
        ],
    ),
    ("cluster status", &["cluster status --config /etc/ndxp/gateway.toml"]),
    ("doctor", &["doctor --config /etc/ndxp/gateway.toml", "doctor --offline"]),
    ("probe", &["probe --config /etc/ndxp/gateway.toml", "probe --ready --to 127.0.0.1:9464"]),
    ("config check", &["config check --config /etc/ndxp/gateway.toml"]),
    ("config show", &["config show --config /etc/ndxp/gateway.toml"]),
    ("config schema", &["config schema > gateway.schema.json"]),
    ("contract check", &["contract check --contracts contracts"]),
    ("contract list", &["contract list"]),
    ("contract show", &["contract show population"]),
    ("contract openapi", &["contract openapi --server https://gateway.example:8443 > openapi.json"]),
    ("contract drift", &["contract drift --source land", "contract drift --report"]),
    ("completions", &["completions bash > /etc/bash_completion.d/ndxp-gateway"]),
    ("man", &["man /usr/local/share/man/man1"]),
];

/// Widest line of a help, in columns.
const WIDTH: usize = 80;

/// Adds each command's examples to the end of its help, and ends lines of its usage where they are too wide.
pub fn with_examples(mut command: Command) -> Command {
    // From here on, each command knows its name with those above it.
    command.build();
    added(command, "")
}

/// A usage in lines: clap itself does not wrap it.
fn usage(text: &str) -> Option<String> {
    const PREFIX: &str = "Usage: ";
    let line = text.trim().strip_prefix(PREFIX).filter(|line| PREFIX.len() + line.chars().count() > WIDTH)?;
    let (mut out, mut width) = (String::new(), PREFIX.len());
    for (nth, part) in line.split(" --").enumerate() {
        let part = if nth == 0 { part.to_owned() } else { format!(" --{part}") };
        if width + part.chars().count() > WIDTH {
            out.push_str("\n          ");
            width = 10;
        }
        width += part.chars().count();
        out.push_str(&part);
    }
    Some(out)
}

fn added(command: Command, path: &str) -> Command {
    let command = match usage(&command.clone().render_usage().to_string()) {
        Some(usage) => command.override_usage(usage),
        None => command,
    };
    let command = match EXAMPLES.iter().find(|(of, _)| *of == path) {
        Some((_, lines)) => command.after_help(text(lines)),
        None => command,
    };
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path} {name}") };
    command.mut_subcommands(|sub| {
        let path = below(sub.get_name());
        added(sub, &path)
    })
}

/// Examples as a shell takes them, in lines of at most 80 columns.
fn text(lines: &[&str]) -> String {
    let mut out = String::from(if lines.len() == 1 { "Example:" } else { "Examples:" });
    for line in lines {
        let mut width = 0;
        for (nth, word) in ["ndxp-gateway"].into_iter().chain(words(line)).enumerate() {
            let length = word.chars().count();
            if nth == 0 {
                out.push_str("\n  ");
                width = 2;
            } else if width + 1 + length > 78 {
                out.push_str(" \\\n      ");
                width = 6;
            } else {
                out.push(' ');
                width += 1;
            }
            out.push_str(word);
            width += length;
        }
    }
    out
}

/// The words of a line; one in quotes stays whole, with them.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let path = if path.is_empty() { sub.get_name().to_owned() } else { format!("{path} {}", sub.get_name()) };
            match sub.has_subcommands() {
                true => leaves(sub, &path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_it_takes_in_lines_of_80_columns() {
        let mut commands = Vec::new();
        leaves(&super::super::command(), "", &mut commands);
        let named: Vec<&str> = EXAMPLES.iter().map(|(path, _)| *path).collect();
        assert_eq!(commands, named);
        for (path, lines) in EXAMPLES {
            for line in lines {
                assert!(line.starts_with(path), "{line}");
                let taken = words(line).map(|word| word.trim_matches('\'')).take_while(|word| *word != ">");
                let parsed = super::super::command().try_get_matches_from(["ndxp-gateway"].into_iter().chain(taken));
                assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
            }
            assert!(text(lines).lines().all(|line| line.chars().count() <= 80), "{}", text(lines));
        }
    }
}
