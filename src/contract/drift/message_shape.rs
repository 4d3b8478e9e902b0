//! The described shape of an encoded message of a gRPC source.

use std::ops::Range;

/// The described shape of a message of a gRPC source.
#[derive(Debug, Default)]
pub struct MessageShape {
    /// The messages; 0 is the response.
    pub(super) messages: Vec<Node>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    /// By number, sorted.
    pub(super) fields: Vec<Known>,
    pub(super) reserved: Vec<Range<u32>>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) number: u32,
    pub(super) name: Box<str>,
    /// Its permitted wire types, as bits.
    pub(super) wire: u8,
    pub(super) described: &'static str,
    /// The message that it contains.
    pub(super) message: Option<usize>,
    /// The numbers of its enum.
    pub(super) codes: Option<Vec<i32>>,
    pub(super) expected: bool,
}
