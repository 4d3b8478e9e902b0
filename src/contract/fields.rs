//! Keeps only the granted fields of a response, on the encoded bytes: one walk for every driver, no decoding.
//!
//! An unknown field is never kept: no grant can name it. The walk reports what was disclosed by path.

use super::formats::is_within;
use super::options::DataClass;
use super::plan::{FieldKind, MessagePlan};
use crate::varint;
use bytes::Bytes;
use std::collections::HashMap;

/// Every field of a response, as a tree of nodes; node 0 is the message itself.
#[derive(Debug, Default)]
pub struct FieldTree {
    nodes: Vec<FieldNode>,
}

#[derive(Debug, Default)]
struct FieldNode {
    path: String,
    /// Children by field number, sorted; empty for scalars.
    children: Vec<(u32, usize)>,
    /// Whether the walk enters it.
    message: bool,
    /// Whether the field's own data class is sensitive.
    sensitive: bool,
    /// Whether its text names a person or an enterprise.
    subject: bool,
    /// The node that it is granted with.
    raw_text_of: Option<usize>,
}

impl FieldTree {
    /// Makes the tree of a message.
    pub fn new(plan: &MessagePlan) -> Self {
        let mut tree = FieldTree { nodes: vec![FieldNode { message: true, ..FieldNode::default() }] };
        tree.add(0, plan);
        tree
    }

    fn add(&mut self, parent: usize, plan: &MessagePlan) {
        let mut children = Vec::new();
        for field in &plan.fields {
            let path = match self.nodes[parent].path.as_str() {
                "" => field.name.clone(),
                above => format!("{above}.{}", field.name),
            };
            let index = self.nodes.len();
            let inner = if let FieldKind::Message(inner) = &field.kind { Some(inner) } else { None };
            let sensitive = field.data_class >= DataClass::Sensitive;
            let (message, subject) = (inner.is_some(), field.subject);
            self.nodes.push(FieldNode { path, children: Vec::new(), message, sensitive, subject, raw_text_of: None });
            children.push((field.field.number(), index));
            if let Some(inner) = inner {
                self.add(index, inner);
            }
        }
        for field in &plan.fields {
            let node = |number: u32| children.iter().find(|(one, _)| *one == number).map(|(_, node)| *node);
            if let (Some(node), Some(main)) = (node(field.field.number()), field.raw_text_of.and_then(node)) {
                self.nodes[node].raw_text_of = Some(main);
            }
        }
        children.sort_unstable();
        self.nodes[parent].children = children;
    }

    /// Returns whether a grant may name this path.
    pub fn has(&self, path: &str) -> bool {
        path == "*" || self.nodes.iter().skip(1).any(|node| node.path == path)
    }

    /// Returns every path, in the order of the contract.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().skip(1).map(|node| node.path.as_str())
    }

    /// Returns the mask that grants these paths; a path grants everything below it.
    pub fn mask<S: AsRef<str>>(&self, granted: &[S]) -> Mask {
        let mut allowed = vec![false; self.nodes.len()];
        let whole = granted.iter().any(|path| path.as_ref() == "*");
        for (index, node) in self.nodes.iter().enumerate() {
            allowed[index] = whole
                || granted.iter().any(|path| {
                    let path = path.as_ref();
                    // The path to a granted field is open as well.
                    node.path.is_empty() || is_within(path, &node.path) || is_within(&node.path, path)
                });
        }
        for (index, node) in self.nodes.iter().enumerate() {
            allowed[index] |= node.raw_text_of.is_some_and(|main| allowed[main]);
        }
        Mask { whole: allowed.iter().all(|flag| *flag), allowed }
    }

    /// Returns the same mask without sensitive fields and everything in them.
    pub fn without_sensitive(&self, mask: Mask) -> Mask {
        let Mask { mut allowed, .. } = mask;
        let mut withheld = vec![false; self.nodes.len()];
        // Everything in a node comes after it.
        for (index, node) in self.nodes.iter().enumerate() {
            if withheld[index] || node.sensitive {
                withheld[index] = true;
                allowed[index] = false;
                node.children.iter().for_each(|(_, child)| withheld[*child] = true);
            }
        }
        Mask { whole: allowed.iter().all(|flag| *flag), allowed }
    }

    /// Returns the paths that a mask allows; a message with listed fields is not listed itself.
    pub fn allowed(&self, mask: &Mask) -> Vec<String> {
        let mut disclosed_nodes = mask.allowed.clone();
        // The message itself is not a field.
        disclosed_nodes[0] = false;
        Disclosed { disclosed_nodes, ..Disclosed::up_to(0) }.paths(self)
    }

    /// Returns whether a mask allows a path.
    pub fn allows(&self, mask: &Mask, path: &str) -> bool {
        self.nodes.iter().zip(&mask.allowed).skip(1).any(|(node, allowed)| *allowed && node.path == path)
    }

    /// Returns whether everything that a mask of this tree allows is also allowed by `mask` of a later tree, and names
    /// no subjects there that it does not name here.
    pub fn is_covered_by(&self, own: &Mask, later: &FieldTree, mask: &Mask) -> bool {
        let paths: HashMap<&str, (&FieldNode, bool)> = later
            .nodes
            .iter()
            .zip(&mask.allowed)
            .map(|(node, allowed)| (node.path.as_str(), (node, *allowed)))
            .collect();
        self.nodes.iter().zip(&own.allowed).filter(|(_, allowed)| **allowed).all(|(node, _)| {
            let later = paths.get(node.path.as_str());
            later.is_some_and(|(later, allowed)| *allowed && (node.subject || !later.subject))
        })
    }

    /// Returns whether a mask of this tree allows a sensitive field.
    pub fn discloses_sensitive(&self, mask: &Mask) -> bool {
        self.nodes.iter().zip(&mask.allowed).any(|(node, allowed)| *allowed && node.sensitive)
    }
}

/// The fields of a response that a grant allows.
#[derive(Debug, Clone)]
pub struct Mask {
    whole: bool,
    allowed: Vec<bool>,
}

impl Mask {
    /// Returns whether nothing is withheld.
    pub fn is_complete(&self) -> bool {
        self.whole
    }
}

/// What the messages of one exchange disclosed: fields, and the persons and enterprises that they name.
#[derive(Debug, Clone)]
pub struct Disclosed {
    disclosed_nodes: Vec<bool>,
    /// Sorted; a bounded number of them, most often one to three.
    subjects: Vec<String>,
    most: usize,
    omitted: u64,
}

impl Disclosed {
    /// Makes an empty one; at most this many different subjects are stored, and the others counted.
    pub fn up_to(most: usize) -> Self {
        Disclosed { disclosed_nodes: Vec::new(), subjects: Vec::new(), most, omitted: 0 }
    }

    /// Returns the ids of persons and enterprises, each once.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.iter().map(String::as_str)
    }

    /// Returns how many ids were disclosed beyond these.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }

    fn names(&mut self, id: &str) {
        if id.is_empty() {
            return;
        }
        let Err(at) = self.subjects.binary_search_by(|known| known.as_str().cmp(id)) else { return };
        if self.subjects.len() < self.most {
            self.subjects.insert(at, id.to_owned());
        } else {
            self.omitted += 1;
        }
    }

    /// Returns their paths, in the order of the contract; a message with listed fields is not listed itself.
    pub fn paths(&self, tree: &FieldTree) -> Vec<String> {
        let disclosed_nodes = |index: usize| self.disclosed_nodes.get(index).copied().unwrap_or(false);
        let shown = |node: &&FieldNode| !node.children.iter().any(|(_, child)| disclosed_nodes(*child));
        let nodes = tree.nodes.iter().enumerate().filter(|(index, _)| disclosed_nodes(*index)).map(|(_, node)| node);
        nodes.filter(shown).map(|node| node.path.clone()).collect()
    }
}

/// A response that is not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response is not a message of the contract")]
pub struct MalformedMessage;

/// Keeps what the mask allows. If that is everything, the bytes are passed on unchanged, and nothing is copied.
///
/// # Errors
/// The bytes are not an encoded message.
pub fn keep(
    tree: &FieldTree,
    mask: &Mask,
    message: &Bytes,
    disclosed: &mut Disclosed,
) -> Result<Bytes, MalformedMessage> {
    disclosed.disclosed_nodes.resize(tree.nodes.len(), false);
    let kept = FieldWalk { tree, mask, disclosed }.message(0, message)?;
    Ok(kept.map_or_else(|| message.clone(), Bytes::from))
}

struct FieldWalk<'a> {
    tree: &'a FieldTree,
    mask: &'a Mask,
    disclosed: &'a mut Disclosed,
}

impl FieldWalk<'_> {
    /// Returns the remaining part of a message; `None` if that is all of it.
    fn message(&mut self, node: usize, bytes: &[u8]) -> Result<Option<Vec<u8>>, MalformedMessage> {
        let (mut at, mut out) = (0, None);
        while at < bytes.len() {
            let field = Field::read(&bytes[at..])?;
            let (start, whole) = (at, &bytes[at..at + field.length]);
            at += field.length;
            let children = &self.tree.nodes[node].children;
            let child =
                children.binary_search_by_key(&field.number, |(number, _)| *number).ok().map(|at| children[at].1);
            let Some(child) = child.filter(|child| self.mask.allowed[*child]) else {
                out.get_or_insert_with(|| bytes[..start].to_vec());
                continue;
            };
            self.disclosed.disclosed_nodes[child] = true;
            if self.tree.nodes[child].subject {
                // Disclosed unchanged, and named unchanged: with blanks around it, it is the same id.
                let id = std::str::from_utf8(field.content.ok_or(MalformedMessage)?).map_err(|_| MalformedMessage)?;
                self.disclosed.names(id.trim());
            }
            let inner = match self.tree.nodes[child].message {
                true => self.message(child, field.content.ok_or(MalformedMessage)?)?,
                false => None,
            };
            match (inner, &mut out) {
                (None, None) => {}
                (None, Some(out)) => out.extend_from_slice(whole),
                (Some(inner), out) => {
                    let out = out.get_or_insert_with(|| bytes[..start].to_vec());
                    varint::write(out, u64::from(field.number) << 3 | 2);
                    varint::write(out, inner.len() as u64);
                    out.extend_from_slice(&inner);
                }
            }
        }
        Ok(out)
    }
}

/// One field on the wire (https://protobuf.dev/programming-guides/encoding/).
pub(super) struct Field<'b> {
    pub number: u32,
    /// The wire type.
    pub wire: u8,
    /// Bytes of the complete field, tag included.
    pub length: usize,
    /// The content, for length-delimited fields.
    pub content: Option<&'b [u8]>,
    /// The bytes after the tag.
    pub value: &'b [u8],
}

impl<'b> Field<'b> {
    /// Reads a message's next field: its number, wire type and bytes.
    ///
    /// # Errors
    /// The bytes are not an encoded message.
    #[inline]
    pub fn read(bytes: &'b [u8]) -> Result<Self, MalformedMessage> {
        let (tag, at) = varint::read(bytes).ok_or(MalformedMessage)?;
        let number =
            u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number)).ok_or(MalformedMessage)?;
        let rest = &bytes[at..];
        let (length, content) = match tag & 7 {
            0 => (varint::read(rest).ok_or(MalformedMessage)?.1, None),
            1 => (8, None),
            2 => {
                let (size, head) = varint::read(rest).ok_or(MalformedMessage)?;
                let end = usize::try_from(size).ok().and_then(|size| head.checked_add(size)).ok_or(MalformedMessage)?;
                (end, Some(rest.get(head..end).ok_or(MalformedMessage)?))
            }
            5 => (4, None),
            // Groups (3 and 4) do not exist in proto3.
            _ => return Err(MalformedMessage),
        };
        let length = at.checked_add(length).filter(|length| *length <= bytes.len()).ok_or(MalformedMessage)?;
        Ok(Field { number, wire: (tag & 7) as u8, length, content, value: &bytes[at..length] })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::contract::ContractSet;
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_reflect::{DynamicMessage, Value};

    fn citizen() -> std::sync::Arc<crate::contract::Operation> {
        static CONTRACTS: std::sync::LazyLock<ContractSet> =
            std::sync::LazyLock::new(|| ContractSet::embedded().unwrap());
        CONTRACTS.operation("/ndxp.population.v1.PopulationService/GetCitizen").unwrap().clone()
    }

    fn sample(operation: &crate::contract::Operation) -> DynamicMessage {
        let mut message = DynamicMessage::new(operation.response.message.clone());
        let name = operation.response.message.get_field_by_name("name").unwrap();
        let mut inner = DynamicMessage::new(name.kind().as_message().unwrap().clone());
        inner.set_field_by_name("family", Value::String("Nguyễn".into()));
        inner.set_field_by_name("given", Value::String("An".into()));
        message.set_field_by_name("citizen_id", Value::String("022199000123".into()));
        message.set_field_by_name("blood_type", Value::String("O".into()));
        message.set_field(&name, Value::Message(inner));
        message
    }

    #[test]
    fn only_granted_fields_stay_and_are_told() {
        let operation = citizen();
        let bytes = Bytes::from(sample(&operation).encode_to_vec());
        let tree = &operation.response_fields;
        let mut disclosed = Disclosed::up_to(10);
        let kept = keep(tree, &tree.mask(&["citizen_id", "name.given"]), &bytes, &mut disclosed).unwrap();
        let message = DynamicMessage::decode(operation.response.message.clone(), kept).unwrap();
        assert!(!message.has_field_by_name("blood_type"));
        let name = message.get_field_by_name("name").unwrap();
        let name = name.as_message().unwrap();
        assert!(name.has_field_by_name("given") && !name.has_field_by_name("family"));
        assert_eq!(disclosed.paths(tree), ["citizen_id", "name.given"]);
    }

    #[test]
    fn l6_people_in_an_answer_are_named_where_their_ids_are_disclosed_up_to_a_bound() {
        let operation = citizen();
        let tree = &operation.response_fields;
        let person = |field: &str, id: &str| {
            let mut message = DynamicMessage::new(operation.response.message.clone());
            let field = operation.response.message.get_field_by_name(field).unwrap();
            let mut inner = DynamicMessage::new(field.kind().as_message().unwrap().clone());
            inner.set_field_by_name("citizen_id", Value::String(id.into()));
            message.set_field(&field, Value::Message(inner));
            message.encode_to_vec()
        };
        let answer = [person("mother", "022199000001"), person("father", " 022199000002 ")].concat();
        let named = |granted: &[&str], most: usize| {
            let mut disclosed = Disclosed::up_to(most);
            keep(tree, &tree.mask(granted), &Bytes::from(answer.clone()), &mut disclosed).unwrap();
            (disclosed.subjects().map(str::to_owned).collect::<Vec<_>>(), disclosed.omitted())
        };
        assert_eq!(named(&["*"], 10), (vec!["022199000001".into(), "022199000002".into()], 0));
        assert_eq!(named(&["father"], 10), (vec!["022199000002".into()], 0), "who is withheld is not named");
        assert_eq!(named(&["name"], 10), (vec![], 0));
        assert_eq!(named(&["*"], 1), (vec!["022199000001".into()], 1));
    }

    #[test]
    fn an_unknown_field_is_withheld_even_from_a_whole_grant() {
        let operation = citizen();
        let tree = &operation.response_fields;
        let mut bytes = sample(&operation).encode_to_vec();
        let clean = Bytes::from(bytes.clone());
        bytes.extend_from_slice(&[0xfa, 0x7f, 3, b'x', b'y', b'z']);
        let mask = tree.mask(&["*"]);
        assert!(mask.is_complete());
        let kept = keep(tree, &mask, &Bytes::from(bytes), &mut Disclosed::up_to(10)).unwrap();
        assert_eq!(kept, clean);
    }

    #[test]
    fn no_grant_lets_nothing_through() {
        let operation = citizen();
        let tree = &operation.response_fields;
        let bytes = Bytes::from(sample(&operation).encode_to_vec());
        let none: [&str; 0] = [];
        assert!(keep(tree, &tree.mask(&none), &bytes, &mut Disclosed::up_to(10)).unwrap().is_empty());
    }

    proptest! {
        /// For every grant: the result is the message without the other fields, and no byte of it changes otherwise.
        #[test]
        fn what_is_kept_is_the_message_without_what_is_not_granted(granted in proptest::sample::subsequence(
            vec!["citizen_id", "blood_type", "name.family", "name.given", "name", "father"], 0..=6,
        )) {
            let operation = citizen();
            let (tree, whole) = (&operation.response_fields, sample(&operation));
            let is_granted = |path: &str| granted.iter().any(|one| *one == path || path.starts_with(&format!("{one}.")));
            let mut expected = whole.clone();
            for field in ["citizen_id", "blood_type"].into_iter().filter(|field| !is_granted(field)) {
                expected.clear_field_by_name(field);
            }
            let mut name = expected.get_field_by_name("name").unwrap().as_message().unwrap().clone();
            for field in ["family", "given"].into_iter().filter(|field| !is_granted(&format!("name.{field}"))) {
                name.clear_field_by_name(field);
            }
            match granted.iter().any(|one| one.starts_with("name")) {
                true => expected.set_field_by_name("name", Value::Message(name)),
                false => expected.clear_field_by_name("name"),
            }
            let bytes = Bytes::from(whole.encode_to_vec());
            let kept = keep(tree, &tree.mask(&granted), &bytes, &mut Disclosed::up_to(10)).unwrap();
            prop_assert_eq!(kept, expected.encode_to_vec());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let operation = citizen();
            let tree = &operation.response_fields;
            let _ = keep(tree, &tree.mask(&["name"]), &Bytes::from(bytes), &mut Disclosed::up_to(10));
        }
    }
}
