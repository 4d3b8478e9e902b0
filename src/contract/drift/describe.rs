//! The shape of an operation's responses, derived from its contract.

use super::shape::{BOOL, DocumentShape, NUMBER, OBJECT, SCALAR, ShapeFault, ShapeNode, TEXT};
use crate::contract::operation::{Binding, CallShape as Flow, Operation};
use crate::contract::options::Wire;
use crate::contract::plan::{FieldKind, FieldPlan, MessagePlan, WirePath};

impl DocumentShape {
    /// Returns the shape of an operation's responses; empty for gRPC, see [`super::MessageShape`]. `common`: paths that
    /// all responses of its source have, `own`: further paths of this operation.
    ///
    /// # Errors
    /// The fault in `ignored` and `expected`.
    pub fn of(operation: &Operation, common: &[String], own: &[String]) -> Result<Self, ShapeFault> {
        let (xml, elements) = match &operation.binding {
            Binding::Soap(soap) | Binding::XRoadSoap { soap, .. } => (true, soap.response.as_slice()),
            Binding::Rest(_) | Binding::XRoadRest { .. } | Binding::Other(_) => (false, &[][..]),
            Binding::Grpc(_) if !own.is_empty() => return Err(ShapeFault::Grpc),
            Binding::Grpc(_) => {
                return Ok(DocumentShape {
                    places: vec![ShapeNode { ignored: true, ..ShapeNode::default() }],
                    xml: false,
                });
            }
        };
        let mut shape = DocumentShape { places: vec![ShapeNode::default()], xml };
        let records = operation.shape == Flow::ServerStream && operation.polling.is_none();
        for way in &operation.response_root {
            let place = shape.way(0, way);
            shape.typed(place, OBJECT, records);
            shape.message(&operation.response, place)?;
            for path in operation.outcome.code_paths() {
                let from = if path.absolute { 0 } else { place };
                shape.scalar(from, &path.parts);
            }
        }
        shape.other_ways(&operation.response_root);
        let paging = operation.paging.iter().flat_map(|paging| paging.total.iter().chain(&paging.more));
        paging.for_each(|path| shape.scalar(0, &path.parts));
        // Signs of absence may begin with the body element that contains the document.
        for way in operation.outcome.sign_paths() {
            let inside = way.split_first().filter(|(first, _)| elements.contains(first)).map(|(_, rest)| rest);
            shape.way(0, inside.unwrap_or(way));
        }
        common.iter().try_for_each(|path| match shape.ignore(0, path) {
            // Another operation of the source may read it.
            Err(ShapeFault::Read(_)) => Ok(()),
            other => other,
        })?;
        own.iter().try_for_each(|path| shape.ignore(0, path))?;
        Ok(shape)
    }

    /// Returns the shape of a document inside a text.
    ///
    /// # Errors
    /// As [`DocumentShape::of`].
    pub fn of_document(plan: &MessagePlan, xml: bool) -> Result<Self, ShapeFault> {
        let mut shape = DocumentShape { places: vec![ShapeNode::default()], xml };
        shape.typed(0, OBJECT, false);
        shape.message(plan, 0)?;
        Ok(shape)
    }

    /// If one path to the message leads through the location of another, the other path's names need not be there.
    fn other_ways(&mut self, ways: &[Vec<String>]) {
        for short in ways {
            let longer = ways.iter().filter(|way| way.len() > short.len() && way.starts_with(short));
            for next in longer.filter_map(|way| way.get(short.len())) {
                let place = self.way(0, short);
                let Some(at) = self.places[place].by_name.get(next.as_str()).copied() else { continue };
                self.places[place].expected.iter_mut().for_each(|group| group.push(at));
            }
        }
    }

    /// Returns the location of a member, and adds it if it is missing.
    fn member(&mut self, of: usize, name: &str) -> usize {
        if let Some(at) = self.places[of].by_name.get(name) {
            return self.places[of].members[*at].1;
        }
        let place = self.places.len();
        self.places.push(ShapeNode::default());
        let at = self.places[of].members.len();
        self.places[of].members.push((name.into(), place));
        self.places[of].by_name.insert(name.into(), at);
        place
    }

    /// Returns the location at the end of a path; everything on the path is a structure.
    fn way(&mut self, from: usize, parts: &[String]) -> usize {
        let mut here = from;
        for part in parts {
            let place = &mut self.places[here];
            place.types |= OBJECT;
            // If the items of a list are meant, the list is described by its own field.
            place.single |= !place.list;
            here = self.member(here, part);
        }
        here
    }

    fn typed(&mut self, place: usize, types: u8, list: bool) {
        let place = &mut self.places[place];
        place.types |= types;
        place.list |= list;
        place.single |= !list;
    }

    fn scalar(&mut self, from: usize, parts: &[String]) {
        let place = self.way(from, parts);
        self.typed(place, SCALAR, false);
    }

    fn message(&mut self, plan: &MessagePlan, place: usize) -> Result<(), ShapeFault> {
        for field in plan.fields.iter().filter(|field| field.raw_text_of.is_none()) {
            self.field(field, place)?;
        }
        plan.ignored.iter().try_for_each(|path| self.ignore(place, path))
    }

    fn field(&mut self, field: &FieldPlan, place: usize) -> Result<(), ShapeFault> {
        if matches!(field.kind, FieldKind::Remaining) {
            self.places[place].open = true;
            return Ok(());
        }
        for name in ways(field) {
            let from = if name.absolute { 0 } else { place };
            let mut at = self.way(from, &name.parts);
            let list = field.list && field.separator.is_none();
            if list && field.wire == Wire::Either {
                self.places[at].single = true;
            }
            if let Some(item) = &field.item {
                self.typed(at, OBJECT, list);
                at = self.member(at, item);
                self.typed(at, types(field), false);
            } else {
                self.typed(at, types(field), list);
            }
            if field.separator.is_some() {
                self.places[at].list = true;
            }
            if let (FieldKind::Message(inner), None) = (&field.kind, &field.embedded) {
                self.message(inner, at)?;
            }
        }
        if field.expected || field.required { self.expect(field, place) } else { Ok(()) }
    }

    /// Records that one of a field's names must be present. A field without a name of its own cannot be missing.
    fn expect(&mut self, field: &FieldPlan, place: usize) -> Result<(), ShapeFault> {
        let ways: Vec<&WirePath> = ways(field).collect();
        if ways.iter().any(|way| way.parts.is_empty()) {
            return Ok(());
        }
        let parents = ways.iter().filter_map(|way| Some((way.absolute, way.parts.split_last()?.1)));
        let parents: Vec<_> = parents.collect();
        let Some((absolute, parent)) = parents.first().copied() else { return Ok(()) };
        if parents.iter().any(|other| *other != (absolute, parent)) {
            // A required field is refused if it is absent, whatever its names are.
            return if field.required { Ok(()) } else { Err(ShapeFault::SplitPaths(field.name.clone())) };
        }
        let above = self.way(if absolute { 0 } else { place }, parent);
        let here = &mut self.places[above];
        let last = ways.iter().filter_map(|way| way.parts.last());
        let group: Vec<usize> = last.filter_map(|name| here.by_name.get(name.as_str()).copied()).collect();
        if !here.expected.contains(&group) {
            here.expected.push(group);
        }
        Ok(())
    }

    fn ignore(&mut self, from: usize, path: &str) -> Result<(), ShapeFault> {
        let parts = WirePath::parse(path).parts;
        let (last, above) = parts.split_last().ok_or(ShapeFault::Empty)?;
        // The contract may or may not know the names on the path.
        let mut here = from;
        for part in above {
            let known = self.places[here].by_name.contains_key(part.as_str());
            here = self.member(here, part);
            if !known {
                self.places[here].types = OBJECT | SCALAR;
                (self.places[here].list, self.places[here].single) = (true, true);
            }
        }
        if last == "*" {
            self.places[here].open = true;
            return Ok(());
        }
        if let Some(at) = self.places[here].by_name.get(last.as_str())
            && !self.places[self.places[here].members[*at].1].ignored
        {
            return Err(ShapeFault::Read(path.to_owned()));
        }
        let place = self.member(here, last);
        self.places[place].ignored = true;
        Ok(())
    }
}

/// Returns every location of a field.
fn ways(field: &FieldPlan) -> impl Iterator<Item = &WirePath> {
    let notations = match &field.kind {
        FieldKind::Date(notations) | FieldKind::Time(notations) => notations.as_slice(),
        _ => &[],
    };
    // A date in parts has no location of its own.
    let own =
        notations.is_empty() || notations.iter().any(|notation| notation.in_parts.is_none() && notation.name.is_none());
    let own = if own { field.names.as_slice() } else { &[] };
    own.iter().chain(notations.iter().flat_map(|notation| notation.paths()))
}

/// Returns the described types of a field. Codes and dates are texts or numbers, as their lists define.
fn types(field: &FieldPlan) -> u8 {
    let is_message = matches!(field.kind, FieldKind::Message(_) | FieldKind::Remaining);
    if !is_message && (field.wire == Wire::Either || field.unparsed_into.is_some()) {
        return SCALAR;
    }
    match (&field.kind, field.wire) {
        (FieldKind::Message(_), _) if field.embedded.is_some() => TEXT,
        (FieldKind::Message(plan), _) => {
            let takes_text = plan.fields.iter().any(|field| field.names.iter().any(|name| name.parts.is_empty()));
            if takes_text { OBJECT | SCALAR } else { OBJECT }
        }
        (FieldKind::Remaining, _) => OBJECT,
        (_, Wire::Text) => TEXT,
        (_, Wire::Number) => NUMBER,
        (FieldKind::Text, _) if field.digits > 0 => TEXT | NUMBER,
        (FieldKind::Text | FieldKind::Bytes, _) => TEXT,
        (FieldKind::Bool { yes, no }, _) if yes.is_some() || no.is_some() => TEXT | NUMBER,
        (FieldKind::Bool { .. }, _) => BOOL,
        (FieldKind::Enum(_) | FieldKind::Date(_) | FieldKind::Time(_), _) => TEXT | NUMBER,
        _ => NUMBER,
    }
}
