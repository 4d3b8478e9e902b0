//! The order of the modules.
//!
//! 1. No two files need each other, directly or through others. An arrow from a file up to a module that it lies in is left out:
//!    a folder's `mod.rs` (or `x.rs` beside `x/`) declares what its children share, such as an error, and calls them. All other
//!    arrows count, between children, between folders and down into a folder. See [`super::graph`] for what an arrow is; a facade
//!    that only re-exports is none.
//! 2. Every arrow between top-level modules goes down the list in `lib.rs`.
//! 3. In `server/`, the front may use the control plane, both the exchange, and all three what stands beside them; none the other way.
//!
//! A cycle is removed by moving what both need (a type, a constant) into a file below both, or by a trait that the lower file
//! declares and the upper one implements.

use super::graph::{Arrows, Tree, cycles};
use std::path::PathBuf;
use std::sync::OnceLock;

fn src() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The gateway's own tree, read once.
fn own() -> &'static Tree {
    static OWN: OnceLock<Tree> = OnceLock::new();
    OWN.get_or_init(|| Tree::read(&src()))
}

/// The arrows of a crate but for those from a file up to a module that it lies in.
fn counted(tree: &Tree) -> Arrows {
    tree.arrows().into_iter().filter(|((from, to), _)| !encloses(to, from)).collect()
}

/// Whether a module's file is that of a folder in which another file lies.
fn encloses(outer: &str, inner: &str) -> bool {
    let folder = outer.strip_suffix("mod.rs").map(str::to_owned);
    let folder = folder.unwrap_or_else(|| outer.trim_end_matches(".rs").to_owned() + "/");
    outer == "lib.rs" || inner.starts_with(&folder)
}

/// Each cycle, with the arrows inside it.
fn in_cycles(tree: &Tree) -> Vec<String> {
    let arrows = counted(tree);
    let lines = cycles(&arrows).into_iter().map(|group| {
        let inside = arrows.iter().filter(|((from, to), _)| group.contains(from) && group.contains(to));
        let lines: Vec<String> = inside.map(|((_, to), why)| format!("  {why}, which is {to}'s")).collect();
        format!("a cycle of {} files:\n{}", group.len(), lines.join("\n"))
    });
    lines.collect()
}

/// Each arrow that goes up the order of the top-level modules.
fn upward(tree: &Tree, order: &[String]) -> Vec<String> {
    let top = |file: &str| file.split(['/', '.']).next().map(str::to_owned);
    let position = |file: &str| top(file).and_then(|name| order.iter().position(|module| *module == name));
    let arrows = tree.arrows();
    let up = arrows.iter().filter(|((from, to), _)| match (position(from), position(to)) {
        (Some(from), Some(to)) => to < from,
        _ => false,
    });
    up.map(|((_, to), why)| format!("{why}: {to} stands above it in lib.rs")).collect()
}

#[test]
fn no_two_files_need_each_other() {
    let found = in_cycles(own());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn arrows_go_down_the_list_in_lib_rs() {
    let order = Tree::order(&std::fs::read_to_string(src().join("lib.rs")).unwrap());
    let found = upward(own(), &order);
    assert!(order.len() > 20 && found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_server_s_folders_are_in_order() {
    // What all rooms share is below them; `server/mod.rs` composes them.
    let rooms = ["server/front/", "server/control/", "server/exchange", "server/"];
    let room = |file: &str| rooms.iter().position(|room| file.starts_with(room)).filter(|_| file != "server/mod.rs");
    let arrows = own().arrows();
    let between = arrows.iter().filter_map(|((from, to), why)| Some((room(from)?, room(to)?, why)));
    let up: Vec<&String> = between.clone().filter(|(from, to, _)| to < from).map(|(.., why)| why).collect();
    assert!(up.is_empty(), "{up:#?}");
    assert!(between.filter(|(from, to, _)| from < to).count() > 20);
}

/// A crate of a few files.
fn crate_of(files: &[(&str, &str)]) -> Tree {
    Tree::of(&|name| files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned()))
}

const LIB: (&str, &str) = ("lib.rs", "pub mod a; pub mod b;");

#[test]
fn a_cycle_is_found_for_every_notation_of_a_name() {
    for (case, there, back) in [
        ("by use", "use crate::b::B; pub struct A;", "use crate::a::A; pub struct B;"),
        ("by a path", "pub fn a() { crate::b::b() }", "pub fn b() { crate::a::a() }"),
        ("by super", "pub fn a(_: super::b::B) {}", "use super::a; pub struct B; fn f() { a::a(B) }"),
        ("within a macro", "pub fn a() { println!(\"{}\", crate::b::b()) }", "pub fn b() { vec![crate::a::a()]; }"),
        ("in a group, renamed", "use crate::{b::{B as C}}; pub struct A;", "use crate::a::*; pub struct B;"),
        ("within a function", "pub fn a() { use crate::b::b; b() }", "pub fn b() { crate::a::a() }"),
    ] {
        let tree = crate_of(&[LIB, ("a.rs", there), ("b.rs", back)]);
        assert_eq!(in_cycles(&tree).len(), 1, "{case}: {:?}", tree.arrows());
    }
}

#[test]
fn a_cycle_through_a_facade_or_three_files_is_found() {
    let facade = ("b/mod.rs", "mod c; pub use c::C;");
    let tree =
        crate_of(&[LIB, ("a.rs", "pub struct A(crate::b::C);"), facade, ("b/c.rs", "pub struct C(crate::a::A);")]);
    assert_eq!(in_cycles(&tree).len(), 1, "{:?}", tree.arrows());
    let folder = ("a/mod.rs", "mod x; mod y; mod z;");
    let x = ("a/x.rs", "pub struct X(super::y::Y);");
    let y = ("a/y.rs", "pub struct Y(super::z::Z);");
    let tree = crate_of(&[LIB, ("b.rs", ""), folder, x, y, ("a/z.rs", "pub struct Z(super::x::X);")]);
    assert_eq!(in_cycles(&tree).len(), 1, "{:?}", tree.arrows());
}

#[test]
fn a_facade_its_children_and_tests_are_not_a_cycle() {
    // The children share what the folder's module declares, and it re-exports and calls them.
    let folder = ("a/mod.rs", "mod x; pub use x::X; pub enum Error { E } pub fn f() -> Result<X, Error> { x::x() }");
    let child = ("a/x.rs", "use super::Error; pub struct X; pub fn x() -> Result<X, Error> { Ok(X) }");
    let tests = ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::X; }");
    let tree = crate_of(&[LIB, folder, child, tests]);
    assert!(in_cycles(&tree).is_empty(), "{:?}", tree.arrows());
    // What is re-exported belongs to the child that defines it, for modules outside as well.
    let tree = crate_of(&[
        LIB,
        ("a.rs", "use crate::b::C; struct A(C);"),
        ("b/mod.rs", "mod c; pub use c::C;"),
        ("b/c.rs", "pub struct C;"),
    ]);
    let arrows: Vec<_> = tree.arrows().into_keys().collect();
    assert_eq!(arrows, [("a.rs".to_owned(), "b/c.rs".to_owned())]);
}

#[test]
fn an_arrow_up_the_order_is_found_and_one_down_is_not() {
    let order = Tree::order(LIB.1);
    assert_eq!(order, ["a", "b"]);
    let tree = crate_of(&[LIB, ("a.rs", "pub struct A;"), ("b.rs", "struct B(crate::a::A);")]);
    assert_eq!(upward(&tree, &order), ["b.rs:1 names crate::a::A: a.rs stands above it in lib.rs"]);
    let tree = crate_of(&[LIB, ("a.rs", "struct A(crate::b::B);"), ("b.rs", "pub struct B;")]);
    assert!(upward(&tree, &order).is_empty());
}
