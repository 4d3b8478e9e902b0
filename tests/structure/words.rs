//! The words of public names: each is the field's own (`docs/glossary.md`) or plain technical English (`docs/words.txt`).
//!
//! Public names are: what is `pub` in `src/`, and its module; fields and variants of the command line's arguments; messages, fields,
//! values, services and methods of `proto/`; the keys of `docs/configuration.md`; the metrics and their labels.
//!
//! `cargo words` prints every public name, by word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use syn::visit::Visit;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The gateway's own protos; those of the sources have the words of their domains.
const PROTOS: [&str; 4] = ["contract", "admin", "audit", "log"];

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == ending => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The words of a name in any case: `MaxTokenBytes`, `max_token_bytes`, `MAX_TOKEN_BYTES`, `max-token-bytes`.
fn words(name: &str) -> Vec<String> {
    let (mut all, mut word) = (Vec::new(), String::new());
    let letters: Vec<char> = name.chars().collect();
    for (at, c) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(at + 1);
        // `fooBar` and `HTTPPort` break before the capital that begins a word.
        let begins = c.is_uppercase()
            && (before.is_some_and(|b| b.is_lowercase())
                || before.is_some_and(|b| b.is_uppercase()) && after.is_some_and(|a| a.is_lowercase()));
        if begins || !c.is_alphabetic() {
            all.push(std::mem::take(&mut word));
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
        }
    }
    all.push(word);
    all.retain(|word| word.chars().count() > 2);
    all
}

/// Every public name, with where it stands.
#[derive(Default)]
struct Names {
    file: String,
    arguments: bool,
    all: BTreeSet<(String, String)>,
}

impl Names {
    fn add(&mut self, name: &impl ToString) {
        self.all.insert((name.to_string().trim_start_matches("r#").to_owned(), self.file.clone()));
    }

    fn fields(&mut self, fields: &syn::Fields, all: bool) {
        for field in fields.iter().filter(|field| all || is_public(&field.vis)) {
            if let Some(name) = &field.ident {
                self.add(name);
            }
        }
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|one| {
        one.path().is_ident("cfg") && one.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a syn::Item) {
        match item {
            syn::Item::Mod(item) if is_test(&item.attrs) => return,
            syn::Item::Mod(item) => self.add(&item.ident),
            syn::Item::Fn(item) if is_public(&item.vis) => self.add(&item.sig.ident),
            syn::Item::Const(item) if is_public(&item.vis) => self.add(&item.ident),
            syn::Item::Static(item) if is_public(&item.vis) => self.add(&item.ident),
            syn::Item::Type(item) if is_public(&item.vis) => self.add(&item.ident),
            syn::Item::Struct(item) if is_public(&item.vis) || self.arguments => {
                self.add(&item.ident);
                self.fields(&item.fields, self.arguments);
            }
            syn::Item::Enum(item) if is_public(&item.vis) || self.arguments => {
                self.add(&item.ident);
                for variant in &item.variants {
                    self.add(&variant.ident);
                    self.fields(&variant.fields, true);
                }
            }
            syn::Item::Trait(item) if is_public(&item.vis) => {
                self.add(&item.ident);
                for inner in &item.items {
                    if let syn::TraitItem::Fn(function) = inner {
                        self.add(&function.sig.ident);
                    }
                }
            }
            syn::Item::Impl(item) if item.trait_.is_none() => {
                for inner in &item.items {
                    match inner {
                        syn::ImplItem::Fn(function) if is_public(&function.vis) => self.add(&function.sig.ident),
                        syn::ImplItem::Const(constant) if is_public(&constant.vis) => self.add(&constant.ident),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if let syn::Item::Mod(_) = item {
            syn::visit::visit_item(self, item);
        }
    }
}

/// Every public name of the tree.
fn public_names() -> BTreeSet<(String, String)> {
    let mut names = Names::default();
    for file in files(&root().join("src"), "rs") {
        names.file = file.strip_prefix(root()).unwrap().display().to_string();
        names.arguments = names.file.starts_with("src/cli/");
        names.visit_file(&syn::parse_file(&std::fs::read_to_string(&file).unwrap()).unwrap());
    }
    let protos = PROTOS.iter().flat_map(|package| files(&root().join("proto/ndxp").join(package), "proto"));
    for file in protos {
        names.file = file.strip_prefix(root()).unwrap().display().to_string();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            let tokens: Vec<&str> =
                line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|token| !token.is_empty()).collect();
            match tokens.as_slice() {
                ["message" | "enum" | "service" | "rpc" | "oneof", name, ..] => names.add(name),
                // A field or a value: what stands before `=`, but for options.
                _ if !line.starts_with("option") && !line.starts_with('(') && line.contains('=') => {
                    let before = line.split('=').next().unwrap_or_default().trim();
                    let name = before.rsplit(' ').next().unwrap_or_default();
                    if !name.is_empty()
                        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                        && !before.contains('(')
                    {
                        names.add(&name);
                    }
                }
                _ => {}
            }
        }
    }
    names.file = "docs/configuration.md".into();
    for line in
        std::fs::read_to_string(root().join(&names.file)).unwrap().lines().filter(|line| line.starts_with("| `"))
    {
        line.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2).for_each(|key| names.add(&key));
    }
    names.file = "docs/operation.md".into();
    let text = std::fs::read_to_string(root().join(&names.file)).unwrap();
    text.split('`').skip(1).step_by(2).filter(|quote| quote.starts_with("ndxp_")).for_each(|metric| names.add(&metric));
    names.all
}

/// The first column of a page's tables, between backquotes or plain.
fn first_column(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    rows.filter_map(|row| Some(row.split('|').nth(1)?.trim().replace('`', ""))).collect()
}

/// Names with a word that stands in no list: of the wire, so that they stay. One places a legal hold.
const WIRE_NAMES: [&str; 3] = ["PlaceHold", "PlaceHoldRequest", "PlaceHoldResponse"];

/// Words of the glossary and of plain technical English.
fn accepted() -> BTreeSet<String> {
    let plain = std::fs::read_to_string(root().join("docs/words.txt")).unwrap();
    let terms = first_column("docs/glossary.md").into_iter().flat_map(|term| words(&term));
    plain.lines().map(str::to_owned).chain(terms).collect()
}

/// Whether a word, or what it is a form of ("longer", "parsed", "writing"), is accepted.
fn is_accepted(accepted: &BTreeSet<String>, word: &str) -> bool {
    let endings = ["s", "es", "d", "ed", "ing", "r", "er", "st", "est"];
    let stems = endings.iter().filter_map(|ending| word.strip_suffix(ending)).filter(|stem| stem.len() > 2);
    let is_form = |stem: &str| is_accepted(accepted, stem) || accepted.contains(&format!("{stem}e"));
    accepted.contains(word) || stems.into_iter().any(is_form)
}

/// Names by each word of theirs.
fn by_word() -> &'static BTreeMap<String, BTreeSet<String>> {
    static NAMES: OnceLock<BTreeMap<String, BTreeSet<String>>> = OnceLock::new();
    NAMES.get_or_init(read_by_word)
}

fn read_by_word() -> BTreeMap<String, BTreeSet<String>> {
    let mut by: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in public_names().into_iter().filter(|(name, _)| !WIRE_NAMES.contains(&name.as_str())) {
        for word in words(&name) {
            by.entry(word).or_default().insert(format!("{name} ({file})"));
        }
    }
    by
}

#[test]
fn every_word_of_a_public_name_is_defined() {
    let accepted = accepted();
    let by = by_word();
    assert!(by.len() > 500);
    let unknown: Vec<String> = by
        .iter()
        .filter(|(word, _)| !is_accepted(&accepted, word))
        .map(|(word, names)| format!("{word}: {}", names.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    let what = "take the field's word (docs/glossary.md); plain technical English goes into docs/words.txt";
    assert!(unknown.is_empty(), "{what}:\n{}", unknown.join("\n"));
}

#[test]
fn every_allowed_wire_name_exists() {
    let (names, accepted) = (public_names(), accepted());
    for wire in WIRE_NAMES {
        assert!(names.iter().any(|(name, _)| name == wire), "no public name is {wire} any more");
        assert!(words(wire).iter().any(|word| !is_accepted(&accepted, word)), "{wire} needs no exception");
    }
}

#[test]
fn names_are_taken_apart_in_every_case() {
    for name in ["MaxTokenBytes", "max_token_bytes", "MAX_TOKEN_BYTES", "listen.max-token-bytes"] {
        assert!(words(name).ends_with(&["max".into(), "token".into(), "bytes".into()]), "{:?}", words(name));
    }
    assert_eq!(words("HTTPPort2x"), ["http", "port"]);
    let accepted = BTreeSet::from(["long".to_owned(), "write".to_owned()]);
    assert!(["long", "longer", "writes", "writing"].iter().all(|word| is_accepted(&accepted, word)));
    assert!(!["told", "lon", "longing_for"].iter().any(|word| is_accepted(&accepted, word)));
}

/// `cargo words`: every public name, by word.
#[test]
#[ignore = "prints, checks nothing"]
fn listing() {
    for (word, names) in by_word() {
        println!("{word} ({})", names.len());
        names.iter().for_each(|name| println!("    {name}"));
    }
}
