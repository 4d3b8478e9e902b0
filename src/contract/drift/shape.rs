//! The described shape of a document: the names that a contract reads or ignores, as a tree, with the types that it
//! describes.

use std::collections::HashMap;

/// Types of a value, as bits.
pub(super) const TEXT: u8 = 1;
pub(super) const NUMBER: u8 = 2;
pub(super) const BOOL: u8 = 4;
pub(super) const OBJECT: u8 = 8;
pub(super) const SCALAR: u8 = TEXT | NUMBER | BOOL;

/// The names of one structure: looked up only if they do not come in the contract's order.
pub(super) type Names = HashMap<Box<str>, usize, foldhash::fast::RandomState>;

/// One location of a document.
#[derive(Debug, Default)]
pub(super) struct ShapeNode {
    /// Its members, in the order of the contract: name and location.
    pub members: Vec<(Box<str>, usize)>,
    /// The same by name: an index into `members`.
    pub by_name: Names,
    /// Described types; 0: any.
    pub types: u8,
    /// Whether a list of these is described, a single one, or both.
    pub list: bool,
    pub single: bool,
    /// Whether its content is not examined.
    pub ignored: bool,
    /// Whether names other than the members are known.
    pub open: bool,
    /// Groups of members; one of each group must be present whenever the structure is.
    pub expected: Vec<Vec<usize>>,
}

/// The shape of a document.
#[derive(Debug, Default)]
pub struct DocumentShape {
    /// The locations; 0 is the root.
    pub(super) places: Vec<ShapeNode>,
    /// Whether it is XML, which has no types, and no list of one item.
    pub(super) xml: bool,
}

/// A fault of a contract's drift options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeFault {
    /// `ignored` names a path that is read.
    #[error("ignored names {0:?}, which the contract reads")]
    Read(String),
    /// `ignored` names nothing.
    #[error("ignored has a path that names nothing")]
    Empty,
    /// Paths of a gRPC source.
    #[error("a gRPC source has no paths to ignore: reserve the numbers in the message")]
    Grpc,
    /// `expected` of a field with names in several structures.
    #[error("field {0:?}: expected requires a field whose names are in one structure of its message")]
    SplitPaths(String),
}
