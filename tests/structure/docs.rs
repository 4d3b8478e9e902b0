//! What the documents name is there: files, folders, tests, and the places that links lead to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page: README, CONTRIBUTING, `docs/**/*.md`, and those beside what they describe.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "fuzz/README.md", "certs/README.md"].map(|page| root().join(page)).into();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("md") => pages.push(path),
                _ => {}
            }
        }
    }
    pages.retain(|page| page.exists());
    pages
}

/// The texts between backquotes, outside blocks of code.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            block = !block;
        }
        if !block && !line.starts_with("    ") {
            found.extend(line.split('`').skip(1).step_by(2).map(|quote| (number + 1, quote)));
        }
    }
    found
}

/// The path in a quotation, where it is one of the tree's: with a folder's name, and an ending of our files or a `/`.
fn path(quote: &str) -> Option<&str> {
    let known = [".rs", ".md", ".sh", ".proto", ".toml", ".py", ".txt", ".service", ".socket", "/"];
    let plain = quote.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    // What begins with these is on the operator's machine, or in the data folder; `../` is beside the tree.
    let elsewhere = [
        "/",
        "../",
        "./",
        "log/",
        "state/",
        "keys/",
        "tile/",
        "data/",
        "pki/",
        "journal/",
        // Keys in etcd.
        "mark/",
        "stored/",
        "issued/",
        "issued-last/",
        "quota/",
        "rate/",
        "secret/",
        "gateway/",
        "epoch/",
        "index/",
        "contracts/",
        "sources/",
    ];
    let ours = plain && quote.contains('/') && known.iter().any(|ending| quote.ends_with(ending));
    (ours && !elsewhere.iter().any(|folder| quote.starts_with(folder))).then_some(quote)
}

/// Every `.rs` file's own name.
fn file_names() -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let (mut names, mut folders) =
            (BTreeSet::new(), ["src", "tests", "benches"].map(|name| root().join(name)).to_vec());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    names.insert(path.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        names
    })
}

/// Whether a path is one of the tree's: from its root, from `src/`, or from the page's own folder.
fn is_there(page: &Path, path: &str) -> bool {
    [root().to_owned(), root().join("src"), page.parent().unwrap().to_owned()]
        .iter()
        .any(|from| from.join(path).exists())
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        text.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

/// What is wrong with a page.
fn faults(page: &Path, text: &str) -> Vec<String> {
    let name = page.strip_prefix(root()).unwrap_or(page).display().to_string();
    let mut faults = Vec::new();
    for (line, quote) in quoted(text) {
        if let Some(path) = path(quote)
            && !is_there(page, path)
        {
            faults.push(format!("{name}:{line}: `{path}` is not there"));
        }
        // A file by its own name alone.
        let alone = quote.ends_with(".rs") && !quote.contains(['/', ' ', '*']);
        if alone && !file_names().contains(quote) {
            faults.push(format!("{name}:{line}: there is no file {quote}"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
            let known = |text: String| anchor.is_empty() || anchors(&text).contains(anchor);
            if !(target.is_dir() || std::fs::read_to_string(&target).is_ok_and(known)) {
                faults.push(format!("{name}:{}: the link {link:?} leads nowhere", number + 1));
            }
        }
    }
    faults
}

#[test]
fn everything_that_the_documents_name_exists() {
    let pages = pages();
    assert!(pages.len() > 15);
    let faults: Vec<String> =
        pages.iter().flat_map(|page| faults(page, &std::fs::read_to_string(page).unwrap())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_suite_is_in_the_page_about_testing() {
    let page = std::fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let mut suites = 0;
    for group in ["exchange", "guarding", "trust", "administration", "log", "cluster", "denial", "structure"] {
        for entry in std::fs::read_dir(root().join("tests").join(group)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let Some(suite) = name.strip_suffix(".rs").filter(|suite| !["main", "graph"].contains(suite)) else {
                continue;
            };
            suites += 1;
            assert!(page.contains(&format!("| `{group}/{suite}` |")), "docs/testing.md has no row for {group}/{suite}");
        }
    }
    assert!(suites > 40, "{suites}");
}

#[test]
fn a_missing_file_and_a_dead_link_are_found() {
    let page = root().join("docs/page.md");
    let wrong = "`server/gone.rs`, `gone.rs`, `tests/gone/`, [x](gone.md), [y](statuses.md#gone)";
    assert_eq!(faults(&page, wrong).len(), 5, "{:?}", faults(&page, wrong));
    // From the root, from `src/` or from the page's folder; commands, patterns, and what lies on other machines are not looked at.
    let right = "`src/lib.rs`, `lib.rs`, `guard/mod.rs`, `statuses.md`, `log/checkpoint.txt`, `cargo run x/y.rs`, `audit/*.rs`, [z](statuses.md), <https://x/y.md>";
    assert!(faults(&page, right).is_empty(), "{:?}", faults(&page, right));
    assert!(faults(&page, "```\n`server/gone.rs`\n```\n    `server/gone.rs`").is_empty());
}
