//! The graph of the source files: which file names an item that another file defines.
//!
//! An arrow goes from the file that names an item to the file that defines it. Names are resolved as the compiler does it:
//! through `use`, `crate::`, `super::`, `self::`, child modules and re-exports. So a facade (a `mod.rs` that re-exports what its
//! children define) is transparent: neither its `mod child;` nor its `pub use child::Item;` is an arrow, and who names
//! `facade::Item` has an arrow to the child. Code behind `#[cfg(test)]` is left out. What a value's type is called
//! counts only where it is written, not where a method of it is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::Visit;

/// An arrow between two files, with the first line and path that makes it.
pub type Arrows = BTreeMap<(String, String), String>;

type Names = Vec<String>;

/// One module of the crate: a file, or a `mod` block inside one.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    defined: BTreeSet<String>,
    imports: BTreeMap<String, Names>,
    globs: Vec<Names>,
    named: Vec<Named>,
}

/// A path that stands somewhere in a module.
struct Named {
    path: Names,
    line: usize,
    reexport: bool,
}

/// The modules of a crate, by their path from its root.
pub struct Tree(BTreeMap<Names, Module>);

impl Tree {
    /// Reads the crate whose root is `lib.rs` in this folder.
    pub fn read(folder: &Path) -> Self {
        Tree::of(&|file| std::fs::read_to_string(folder.join(file)).ok())
    }

    /// Reads the crate whose files are given by name.
    pub fn of(source: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut tree = Tree(BTreeMap::new());
        tree.read_file(source, "lib.rs", &mut Vec::new());
        tree
    }

    /// The top-level modules, in the order in which `lib.rs` declares them.
    pub fn order(lib: &str) -> Names {
        let file = syn::parse_file(lib).unwrap();
        let names = file.items.iter().filter_map(|item| match item {
            syn::Item::Mod(module) if !only_tests(&module.attrs) => Some(module.ident.to_string()),
            _ => None,
        });
        names.collect()
    }

    fn read_file(&mut self, source: &dyn Fn(&str) -> Option<String>, file: &str, at: &mut Names) {
        let text = source(file).unwrap_or_else(|| panic!("{file} is declared and not there"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.read_items(source, file, at, &parsed.items);
    }

    fn read_items(&mut self, source: &dyn Fn(&str) -> Option<String>, file: &str, at: &mut Names, items: &[syn::Item]) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            if attributes(item).is_some_and(only_tests) {
                continue;
            }
            if let syn::Item::Mod(child) = item {
                let name = child.ident.to_string();
                module.children.insert(name.clone());
                at.push(name.clone());
                match &child.content {
                    Some((_, inner)) => self.read_items(source, file, at, inner),
                    None => self.read_file(source, &child_file(source, file, &name), at),
                }
                at.pop();
                continue;
            }
            if let syn::Item::Use(import) = item {
                let reexport = !matches!(import.vis, syn::Visibility::Inherited);
                module.import(&import.tree, &mut Vec::new(), reexport);
                continue;
            }
            module.defined.extend(name_of(item));
            module.visit_item(item);
        }
        self.0.insert(at.clone(), module);
    }

    /// Every arrow between two different files.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (at, module) in &self.0 {
            for named in &module.named {
                let Some(target) = self.resolve(at, &named.path, 0) else { continue };
                // A facade's re-export of what lies below it.
                if named.reexport && target.starts_with(at) {
                    continue;
                }
                let file = &self.0[&target].file;
                if *file != module.file {
                    let why = format!("{}:{} names {}", module.file, named.line, named.path.join("::"));
                    arrows.entry((module.file.clone(), file.clone())).or_insert(why);
                }
            }
        }
        arrows
    }

    /// The module that defines what a path names, seen from the module `at`; `None` for other crates and for modules as such.
    fn resolve(&self, at: &[String], path: &[String], depth: usize) -> Option<Names> {
        let module = self.0.get(at)?;
        let (first, rest) = path.split_first()?;
        if depth > 32 {
            return None;
        }
        match first.as_str() {
            "crate" => self.below(&[], rest, depth),
            "self" => self.below(at, rest, depth),
            "super" => self.below(&at[..at.len().checked_sub(1)?], rest, depth),
            _ if module.children.contains(first) || module.imports.contains_key(first) => self.below(at, path, depth),
            _ if module.defined.contains(first) => Some(at.to_vec()),
            _ => module.globs.iter().find_map(|glob| {
                let target = self.module(at, glob, depth)?;
                self.0[&target].has(first).then(|| self.below(&target, path, depth + 1))?
            }),
        }
    }

    /// As [`resolve`](Self::resolve), for a path that begins inside the module `at`.
    fn below(&self, at: &[String], path: &[String], depth: usize) -> Option<Names> {
        let module = self.0.get(at)?;
        let (first, rest) = path.split_first()?;
        if first == "super" {
            return self.below(&at[..at.len().checked_sub(1)?], rest, depth);
        }
        if module.children.contains(first) && !(rest.is_empty() && module.defined.contains(first)) {
            let child: Names = at.iter().chain([first]).cloned().collect();
            return self.below(&child, rest, depth);
        }
        if let Some(import) = module.imports.get(first).filter(|import| *import != path) {
            let whole: Names = import.iter().chain(rest).cloned().collect();
            return self.resolve(at, &whole, depth + 1);
        }
        if !module.defined.contains(first) {
            for glob in &module.globs {
                let Some(target) = self.module(at, glob, depth) else { continue };
                if self.0[&target].has(first) {
                    return self.below(&target, path, depth + 1);
                }
            }
        }
        Some(at.to_vec())
    }

    /// The module that a path names as such.
    fn module(&self, at: &[String], path: &[String], depth: usize) -> Option<Names> {
        let mut probe = path.to_vec();
        probe.push("<the module>".to_owned());
        self.resolve(at, &probe, depth + 1)
    }
}

impl Module {
    fn has(&self, name: &str) -> bool {
        self.defined.contains(name) || self.imports.contains_key(name) || self.children.contains(name)
    }

    fn import(&mut self, tree: &syn::UseTree, before: &mut Names, reexport: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before, reexport);
                before.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.import(item, before, reexport)),
            syn::UseTree::Glob(glob) => {
                self.globs.push(before.clone());
                let path = before.iter().cloned().chain(["*".to_owned()]).collect();
                self.named.push(Named { path, line: glob.star_token.span.start().line, reexport });
            }
            syn::UseTree::Name(name) => self.import_as(before, &name.ident, &name.ident, reexport),
            syn::UseTree::Rename(rename) => self.import_as(before, &rename.ident, &rename.rename, reexport),
        }
    }

    fn import_as(&mut self, before: &Names, name: &syn::Ident, known_as: &syn::Ident, reexport: bool) {
        let mut path = before.clone();
        let mut known_as = known_as.to_string();
        if name == "self" {
            if known_as == "self" {
                known_as = path.last().cloned().unwrap_or_default();
            }
        } else {
            path.push(name.to_string());
        }
        self.named.push(Named { path: path.clone(), line: name.span().start().line, reexport });
        self.imports.insert(known_as, path);
    }

    /// The paths among the tokens of a macro's call, which no parser knows the meaning of.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree;
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut path: Names = Vec::new();
        let mut line = 0;
        let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
        let mut index = 0;
        while index < tokens.len() {
            match &tokens[index] {
                TokenTree::Ident(ident) => {
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    if colon(tokens.get(index + 1))
                        && colon(tokens.get(index + 2))
                        && matches!(tokens.get(index + 3), Some(TokenTree::Ident(_)))
                    {
                        index += 3;
                        continue;
                    }
                    let path = std::mem::take(&mut path);
                    if path.len() > 1 {
                        self.named.push(Named { path, line, reexport: false });
                    }
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {}
            }
            index += 1;
        }
    }
}

impl<'a> Visit<'a> for Module {
    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.leading_colon.is_none() {
            let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
            self.named.push(Named { path: names, line, reexport: false });
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.tokens(called.tokens.clone());
        syn::visit::visit_macro(self, called);
    }

    fn visit_item_use(&mut self, import: &'a syn::ItemUse) {
        self.import(&import.tree, &mut Vec::new(), false);
    }

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}
}

fn only_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn attributes(item: &syn::Item) -> Option<&[syn::Attribute]> {
    match item {
        syn::Item::Mod(item) => Some(&item.attrs),
        syn::Item::Use(item) => Some(&item.attrs),
        syn::Item::Fn(item) => Some(&item.attrs),
        syn::Item::Impl(item) => Some(&item.attrs),
        syn::Item::Struct(item) => Some(&item.attrs),
        syn::Item::Const(item) => Some(&item.attrs),
        syn::Item::Static(item) => Some(&item.attrs),
        _ => None,
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Const(item) => &item.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.to_string())
}

/// The file of a child module: `child.rs` or `child/mod.rs`, beside a `mod.rs` or in the folder of the file's own name.
fn child_file(source: &dyn Fn(&str) -> Option<String>, parent: &str, child: &str) -> String {
    let parent = Path::new(parent);
    let folder = match parent.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs") => parent.parent().map(PathBuf::from).unwrap_or_default(),
        _ => parent.with_extension(""),
    };
    let beside = folder.join(format!("{child}.rs")).to_string_lossy().into_owned();
    if source(&beside).is_some() { beside } else { folder.join(child).join("mod.rs").to_string_lossy().into_owned() }
}

/// The groups of files that reach each other by arrows: each is a cycle. Tarjan's algorithm.
pub fn cycles(arrows: &Arrows) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        next.entry(from).or_default().push(to);
        next.entry(to).or_default();
    }
    let mut search = Search::new(&next);
    for file in next.keys() {
        if !search.index.contains_key(file) {
            search.visit(file);
        }
    }
    search.found
}

struct Search<'a> {
    next: &'a BTreeMap<&'a str, Vec<&'a str>>,
    index: BTreeMap<&'a str, usize>,
    low: BTreeMap<&'a str, usize>,
    stack: Vec<&'a str>,
    found: Vec<Vec<String>>,
}

impl<'a> Search<'a> {
    fn new(next: &'a BTreeMap<&'a str, Vec<&'a str>>) -> Self {
        Search { next, index: BTreeMap::new(), low: BTreeMap::new(), stack: Vec::new(), found: Vec::new() }
    }

    fn visit(&mut self, file: &'a str) {
        let index = self.index.len();
        self.index.insert(file, index);
        self.low.insert(file, index);
        self.stack.push(file);
        let next = self.next;
        for &other in &next[file] {
            if !self.index.contains_key(other) {
                self.visit(other);
                let low = self.low[file].min(self.low[other]);
                self.low.insert(file, low);
            } else if self.stack.contains(&other) {
                let low = self.low[file].min(self.index[other]);
                self.low.insert(file, low);
            }
        }
        if self.low[file] == index {
            let from = self.stack.iter().position(|on| *on == file).unwrap();
            let group = self.stack.split_off(from);
            if group.len() > 1 {
                self.found.push(group.into_iter().map(str::to_owned).collect());
            }
        }
    }
}
