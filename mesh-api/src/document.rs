//! Text to objects. A file is cut into documents, each document becomes a tree with places, each tree an [`Object`] or
//! a [`Diagnostic`] that says where and why not.
//!
//! A bad document never costs its neighbours: not those before it, not those after it. Hostile text (deep nesting,
//! alias bombs, endless documents) is refused while it is read, in bounded memory.

#![allow(clippy::result_large_err, reason = "a refused document is as much a result as a read one, and as large")]

pub(crate) mod at;
mod compose;
pub(crate) mod de;
mod json;
mod node;
mod plain;
mod scalar;
mod split;

pub use compose::{MAX_ALIASED, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES};
pub use node::{Key, Mark, Node, Value};
pub use split::{Piece, pieces};

use compose::Refusal;

use crate::object::{self, Object};
use crate::{Diagnostic, FieldPath, Location, Name, ObjectRef};

/// What a text holds, in its order.
#[derive(Debug, Default, Clone)]
pub struct Parsed {
    /// Each document that is an object, or what is wrong with it. The items of a `List` stand in its place.
    pub documents: Vec<Result<Document, Diagnostic>>,
}

impl Parsed {
    /// The objects that could be read.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.documents.iter().filter_map(|document| document.as_ref().ok()).map(|document| &document.object)
    }

    /// Everything there is to tell the user, in the order of the text.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.documents.iter().flat_map(|document| match document {
            Ok(document) => document.diagnostics.iter(),
            Err(diagnostic) => std::slice::from_ref(diagnostic).iter(),
        })
    }
}

/// An object and where it was read.
#[derive(Debug, Clone)]
pub struct Document {
    /// The object.
    pub object: Object,
    /// The first line of the document.
    pub location: Location,
    /// Where it stands in its document: `items[3]` in a `List`, otherwise empty.
    pub at: FieldPath,
    /// Warnings, such as fields that the kind does not have.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads every object of a file. `file` is the name that diagnostics tell; `text` need not be UTF-8, what is not is
/// reported.
///
/// ```
/// let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\nkind: [\n";
/// let parsed = mesh_api::document::parse(&"shop.yaml".into(), text);
/// assert_eq!(parsed.objects().count(), 1);
/// assert_eq!(parsed.diagnostics().next().unwrap().location.as_ref().unwrap().line, 5);
/// ```
pub fn parse(file: &Name, text: &(impl AsRef<[u8]> + ?Sized)) -> Parsed {
    let documents = raw(file, text)
        .into_iter()
        .flat_map(|document| match document {
            Ok(document) => document.objects(),
            Err(diagnostic) => vec![Err(diagnostic)],
        })
        .collect();
    Parsed { documents }
}

/// Reads a text that is one object of the kind asked for. A field that the kind doesn't have is an error here.
///
/// ```
/// use mesh_api::{document, networking::Sidecar};
/// let text = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec: {egress: [{hosts: [./*]}]}";
/// assert_eq!(document::one::<Sidecar>(text)?.spec.egress[0].hosts, ["./*"]);
/// # Ok::<(), mesh_api::Diagnostic>(())
/// ```
///
/// # Errors
/// The first thing wrong, or that the text holds something else.
pub fn one<K: TryFrom<Object, Error = Object>>(text: &str) -> Result<K, Diagnostic> {
    let mut documents = parse(&Name::from("text"), text).documents.into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return Err(Diagnostic::error("NotAnObject", "the text must hold one object, no more and no less"));
    };
    let Document { object, location, diagnostics, .. } = document?;
    if let Some(problem) = diagnostics.into_iter().next() {
        return Err(problem);
    }
    K::try_from(object).map_err(|other| {
        Diagnostic::error("UnknownKind", "another kind was asked for").on(&other.object_ref()).from_text(location)
    })
}

/// A document as written: any kind, `List`s whole, in the order of its text.
#[derive(Debug, Clone)]
pub struct Raw<'a> {
    /// The file.
    pub file: Name,
    /// The document. Its places are those of the file.
    pub node: Node<'a>,
}

/// Reads every document of a file without asking what it is. Empty documents are left out.
pub fn raw<'a>(file: &Name, text: &'a (impl AsRef<[u8]> + ?Sized)) -> Vec<Result<Raw<'a>, Diagnostic>> {
    let mut out = Vec::new();
    for piece in split::pieces(text.as_ref()) {
        if out.len() >= MAX_DOCUMENTS {
            out.truncate(MAX_DOCUMENTS);
            let message = format!("more than {MAX_DOCUMENTS} documents in one file; what follows is not read");
            let mark = Mark { line: piece.first_line, column: 1 };
            out.push(Err(refused(file, "", Refusal::new("DocumentTooLarge", mark, message))));
            break;
        }
        match std::str::from_utf8(piece.text) {
            Ok(text) => {
                for document in compose::compose(text, piece.first_line) {
                    out.push(match document {
                        Ok(node) => Ok(Raw { file: file.clone(), node }),
                        Err(refusal) => Err(refused(file, text, refusal)),
                    });
                }
            }
            Err(error) => {
                let valid = piece.text.get(..error.valid_up_to()).unwrap_or_default();
                let line = valid.iter().filter(|&&b| b == b'\n').count();
                let column = valid.rsplit(|&b| b == b'\n').next().map_or(0, <[u8]>::len);
                let mark = Mark {
                    line: piece.first_line.saturating_add(u32::try_from(line).unwrap_or(u32::MAX)),
                    column: u32::try_from(column + 1).unwrap_or(u32::MAX),
                };
                let refusal = Refusal::new("InvalidYAML", mark, "not UTF-8; save the file in that encoding");
                out.push(Err(refused(file, &String::from_utf8_lossy(valid), refusal)));
            }
        }
    }
    out
}

fn refused(file: &Name, text: &str, refusal: Refusal) -> Diagnostic {
    let guess = split::guess(text);
    let mut diagnostic = Diagnostic::error(refusal.code, refusal.message).from_text(location(file, refusal.mark));
    diagnostic.object = object::reference(guess.api_version, guess.kind, guess.namespace, guess.name);
    diagnostic
}

fn location(file: &Name, mark: Mark) -> Location {
    Location { file: file.clone(), line: mark.line, column: mark.column }
}

impl Raw<'_> {
    /// Where the document begins.
    pub fn location(&self) -> Location {
        location(&self.file, self.node.mark)
    }

    /// Where the value of `path` is: for a diagnostic that names a field.
    pub fn locate(&self, path: &FieldPath) -> Location {
        location(&self.file, self.node.locate(path.as_str()))
    }

    /// Which object this is, as far as it says so.
    pub fn object_ref(&self) -> Option<ObjectRef> {
        reference(&self.node)
    }

    /// The object that the document is, or the objects of a list.
    pub fn objects(&self) -> Vec<Result<Document, Diagnostic>> {
        let text = |key| self.node.get(key).and_then(Node::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let list_of = kind.strip_suffix("List").zip(self.node.get("items"));
        match list_of {
            Some((_, Node { value: Value::Sequence(items), mark })) if items.len() > MAX_DOCUMENTS => {
                let message = format!("more than {MAX_DOCUMENTS} items; split the list");
                vec![Err(Diagnostic::error("DocumentTooLarge", message)
                    .at(FieldPath::new("items"))
                    .from_text(location(&self.file, *mark)))]
            }
            Some((item_kind, Node { value: Value::Sequence(items), .. })) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    let at = FieldPath::new("items").index(index);
                    // In a ServiceList, the items need not say that they are Services.
                    self.object(item, if item_kind.is_empty() { ("", "") } else { (api_version, item_kind) }, &at)
                })
                .collect(),
            Some((_, Node { value: Value::Null, .. })) => Vec::new(),
            _ => vec![self.object(&self.node, ("", ""), &FieldPath::default())],
        }
    }

    fn object(
        &self,
        node: &Node<'_>,
        (list_version, list_kind): (&str, &str),
        at: &FieldPath,
    ) -> Result<Document, Diagnostic> {
        let told = |code: &'static str, path: FieldPath, mark: Mark, message: String| {
            let mut diagnostic = Diagnostic::error(code, message).at(path).from_text(location(&self.file, mark));
            diagnostic.object = reference(node);
            diagnostic
        };
        if !matches!(node.value, Value::Mapping(_)) {
            let message = format!("not a Kubernetes object but {}", node.value.describe());
            return Err(told("NotAnObject", at.clone(), node.mark, message));
        }
        let said = |key: &'static str, otherwise: &'static str| match node.get(key) {
            Some(Node { value: Value::String(text), .. }) => Ok(text.as_ref()),
            None | Some(Node { value: Value::Null, .. }) => Ok(otherwise),
            Some(other) => {
                let message = format!("{key} must be a string, not {}", other.value.describe());
                Err(told("InvalidField", FieldPath::new(key), other.mark, message))
            }
        };
        let or_list = |text: &str, list: &str| if text.is_empty() { list.to_owned() } else { text.to_owned() };
        let api_version = or_list(said("apiVersion", "")?, list_version);
        let kind = or_list(said("kind", "")?, list_kind);
        for (key, text) in [("apiVersion", &api_version), ("kind", &kind)] {
            if text.is_empty() {
                return Err(told(
                    "NotAnObject",
                    at.clone(),
                    node.mark,
                    format!("not a Kubernetes object: {key} is missing"),
                ));
            }
        }
        let (object, unknown) = Object::from_node(&api_version, &kind, node).map_err(|error| {
            let mark = if error.mark.line == 0 { node.mark } else { error.mark };
            told(error.code, error.path, mark, error.message)
        })?;
        let reference = object.object_ref();
        if reference.name.is_empty() {
            let path = FieldPath::new("metadata.name");
            return Err(told(
                "InvalidField",
                path,
                node.locate("metadata.name"),
                "metadata.name is missing".to_owned(),
            ));
        }
        let diagnostics = unknown
            .into_iter()
            .map(|(path, mark)| {
                Diagnostic::warning("UnknownField", format!("{kind} has no such field; it is ignored"))
                    .on(&reference)
                    .at(path)
                    .from_text(location(&self.file, mark))
            })
            .collect();
        Ok(Document { object, location: location(&self.file, node.mark), at: at.clone(), diagnostics })
    }
}

fn reference(node: &Node<'_>) -> Option<ObjectRef> {
    let text = |node: Option<&Node<'_>>| node.and_then(Node::as_str).unwrap_or_default().to_owned();
    let metadata = node.get("metadata");
    object::reference(
        &text(node.get("apiVersion")),
        &text(node.get("kind")),
        &text(metadata.and_then(|m| m.get("namespace"))),
        &text(metadata.and_then(|m| m.get("name"))),
    )
}
