//! One object at one revision, as bytes: what the caches hold and what every reader shares.

use crate::budget::Budget;
use crate::splice::{self, Layout};
use api::Object;
use api::errors::ApiError;
use bytes::Bytes;
use meta::{ObjectKey, json, proto};
use parking_lot::Mutex;
use resources::Resource;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What a decoded object is reckoned to hold for each byte of its document.
const DECODED_FACTOR: usize = 4;

/// Values, where they are not empty, of the fields that selectors may name.
type Selectable = Box<[(&'static str, String)]>;

/// One object at one revision.
///
/// Holds the document as it is stored, without resourceVersion; whatever is handed out has it. JSON text and the
/// decoded object are made on demand, once, shared, counted against the registry's budget and dropped when over it.
pub struct Encoded {
    resource: &'static dyn Resource,
    key: ObjectKey,
    revision: i64,
    document: Bytes,
    /// Where the parts of a protobuf document lie; `None` where the document is JSON.
    layout: Option<Layout>,
    selectable: OnceLock<Selectable>,
    /// Boxed: most objects at rest have none.
    derived: Mutex<Option<Box<Derived>>>,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct Derived {
    json: Option<Bytes>,
    proto: Option<Bytes>,
    object: Option<Arc<dyn Object>>,
    /// The same object in other versions of its kind.
    versions: Vec<Arc<Encoded>>,
    bytes: usize,
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoded({} {} @{})", self.resource.kind(), self.key, self.revision)
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        if let Some(derived) = self.derived.get_mut() {
            self.budget.release(derived.bytes);
        }
    }
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("unable to decode a stored object: {error}"))
}

impl Encoded {
    /// Takes a document as stored. `resource` is the version that the document is in.
    pub fn from_document(
        resource: &'static dyn Resource,
        key: ObjectKey,
        revision: i64,
        document: Bytes,
        budget: &Arc<Budget>,
    ) -> Result<Arc<Self>, ApiError> {
        let layout = match resource.custom() {
            None => Some(Layout::of(&document).map_err(broken)?),
            Some(_) => None,
        };
        Ok(Arc::new(Encoded {
            resource,
            key,
            revision,
            document,
            layout,
            selectable: OnceLock::new(),
            derived: Mutex::default(),
            budget: Arc::clone(budget),
        }))
    }

    /// Encodes an object. Revision 0 leaves resourceVersion out, as dry runs answer.
    pub fn from_object(
        resource: &'static dyn Resource,
        mut object: Box<dyn Object>,
        revision: i64,
        budget: &Arc<Budget>,
    ) -> Result<Arc<Self>, ApiError> {
        object.metadata_mut().resource_version.clear();
        let document = Bytes::from(api::codec::to_stored(&*object));
        let metadata = object.metadata();
        let key = ObjectKey::new(metadata.namespace.clone(), metadata.name.clone());
        let encoded = Self::from_document(resource, key, revision, document, budget)?;
        encoded.adopt(object);
        Ok(encoded)
    }

    /// The same document at another revision: an object's last state, as of its deletion.
    pub(crate) fn at_revision(&self, revision: i64) -> Arc<Self> {
        let selectable = self.selectable.clone();
        Arc::new(Encoded {
            resource: self.resource,
            key: self.key.clone(),
            revision,
            document: self.document.clone(),
            layout: self.layout,
            selectable,
            derived: Mutex::default(),
            budget: Arc::clone(&self.budget),
        })
    }

    /// Keeps an object that was decoded anyway.
    pub(crate) fn adopt(self: &Arc<Self>, mut object: Box<dyn Object>) {
        object.metadata_mut().resource_version = self.resource_version();
        let object: Arc<dyn Object> = Arc::from(object);
        self.keep(self.document.len() * DECODED_FACTOR, |derived| {
            derived.object.get_or_insert(object).clone()
        });
    }

    fn keep<T>(self: &Arc<Self>, bytes: usize, put: impl FnOnce(&mut Derived) -> T) -> T {
        let kept = {
            let mut derived = self.derived.lock();
            let derived = derived.get_or_insert_default();
            derived.bytes += bytes;
            put(derived)
        };
        self.budget.add(self, bytes);
        kept
    }

    pub(crate) fn derived_bytes(&self) -> usize {
        self.derived.lock().as_ref().map_or(0, |derived| derived.bytes)
    }

    /// What was made before and is still there.
    fn made<T: Clone>(&self, which: impl FnOnce(&Derived) -> Option<T>) -> Option<T> {
        self.derived.lock().as_ref().and_then(|derived| which(derived))
    }

    pub(crate) fn drop_derived(&self) {
        let derived = self.derived.lock().take();
        if let Some(derived) = derived {
            self.budget.release(derived.bytes);
        }
    }

    pub fn resource(&self) -> &'static dyn Resource {
        self.resource
    }
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }
    /// The revision of the write that made it; 0 for what was never written.
    pub fn revision(&self) -> i64 {
        self.revision
    }
    pub fn resource_version(&self) -> String {
        if self.revision == 0 { String::new() } else { self.revision.to_string() }
    }
    /// The document as stored, without resourceVersion: protobuf in its envelope, or JSON.
    pub fn document(&self) -> &Bytes {
        &self.document
    }
    /// Roughly how many bytes a reader will get, for sizing buffers.
    pub fn size(&self) -> usize {
        self.document.len()
    }

    /// The decoded object, shared by all who ask.
    pub fn object(self: &Arc<Self>) -> Result<Arc<dyn Object>, ApiError> {
        if let Some(object) = self.made(|derived| derived.object.clone()) {
            return Ok(object);
        }
        let object: Arc<dyn Object> = Arc::from(self.decode()?);
        Ok(self.keep(self.document.len() * DECODED_FACTOR, |derived| {
            derived.object.get_or_insert(object).clone()
        }))
    }

    /// A decoded object of one's own, with its resourceVersion.
    pub fn decode(&self) -> Result<Box<dyn Object>, ApiError> {
        if let Some(object) = self.made(|derived| derived.object.clone()) {
            return Ok(object.clone_object());
        }
        let mut object = self.resource.new_object();
        match &self.layout {
            Some(layout) => proto::merge(object.as_dyn_mut(), layout.raw(&self.document)).map_err(broken)?,
            None => {
                let mut notes = json::Notes::default();
                json::decode(object.as_dyn_mut(), &self.document, &mut notes).map_err(broken)?;
                // A schema may have learnt defaults since the object was written.
                self.resource.default(&mut *object);
            }
        }
        object.metadata_mut().resource_version = self.resource_version();
        Ok(object)
    }

    /// The object as JSON text, kind and apiVersion first.
    pub fn json(self: &Arc<Self>) -> Result<Bytes, ApiError> {
        if let Some(json) = self.made(|derived| derived.json.clone()) {
            return Ok(json);
        }
        let mut text = Vec::with_capacity(self.document.len() * 2);
        match self.made(|derived| derived.object.clone()) {
            Some(object) => json::encode(object.as_dyn(), &mut text),
            None => json::encode(self.decode()?.as_dyn(), &mut text),
        }
        text.shrink_to_fit();
        let text = Bytes::from(text);
        Ok(self.keep(text.len(), |derived| derived.json.get_or_insert(text).clone()))
    }

    /// The object as an item of a JSON list, which states no kind: the fields and the closing brace. The list writes
    /// the opening brace before it.
    pub fn json_item(self: &Arc<Self>) -> Result<Bytes, ApiError> {
        let json = self.json()?;
        if self.layout.is_none() {
            // Items of lists of custom resources state their kind.
            return Ok(json.slice(1..));
        }
        let gvk = self.resource.gvk();
        let api_version =
            if gvk.group.is_empty() { gvk.version.len() } else { gvk.group.len() + 1 + gvk.version.len() };
        // {"kind":"K","apiVersion":"V",
        let head = r#"{"kind":"","apiVersion":"","#.len() + gvk.kind.len() + api_version;
        Ok(json.slice(head.min(json.len())..))
    }

    /// The object as a protobuf document. Kept, for events that many watchers share. Custom resources have none: theirs
    /// is the JSON that is stored, and nobody is offered it.
    pub fn proto(self: &Arc<Self>) -> Bytes {
        let Some(layout) = &self.layout else { return self.document.clone() };
        if let Some(document) = self.made(|derived| derived.proto.clone()) {
            return document;
        }
        let mut out = Vec::new();
        layout.append_document(&self.document, &self.resource_version(), &mut out);
        let document = Bytes::from(out);
        self.keep(document.len(), |derived| derived.proto.get_or_insert(document).clone())
    }

    /// Appends the object's protobuf message without its envelope, as lists hold it; makes nothing and keeps nothing.
    pub fn append_proto_message(&self, out: &mut Vec<u8>) {
        if let Some(layout) = &self.layout {
            layout.append_raw(&self.document, &self.resource_version(), out);
        }
    }

    /// The labels, read from the bytes.
    pub fn labels(&self) -> BTreeMap<String, String> {
        match &self.layout {
            Some(layout) => splice::labels(layout.metadata(&self.document)),
            None => splice::json_labels(&self.document),
        }
    }

    /// The values of the fields that selectors may name, but for name and namespace, which are the key's.
    fn selectable(self: &Arc<Self>) -> &[(&'static str, String)] {
        self.selectable.get_or_init(|| {
            // What cannot be decoded matches no field.
            let Ok(object) = self.object() else { return Box::default() };
            let fields = self.resource.selectable(&*object).into_iter();
            fields.filter(|(name, value)| !name.starts_with("metadata.") && !value.is_empty()).collect()
        })
    }

    /// The value of a field that selectors may name.
    pub fn field(self: &Arc<Self>, name: &str) -> Option<String> {
        match name {
            "metadata.name" => Some(self.key.name.clone()),
            "metadata.namespace" => Some(self.key.namespace.clone()),
            _ => self.selectable().iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()),
        }
    }

    /// The object in the version of `resource`, where it is its own or has been made before.
    pub(crate) fn known_version(self: &Arc<Self>, resource: &dyn Resource) -> Option<Arc<Self>> {
        let gvk = resource.gvk();
        if self.resource.gvk() == gvk {
            return Some(Arc::clone(self));
        }
        self.made(|derived| derived.versions.iter().find(|version| version.resource.gvk() == gvk).cloned())
    }

    /// Keeps the object in another version.
    pub(crate) fn keep_version(
        self: &Arc<Self>,
        resource: &'static dyn Resource,
        object: Box<dyn Object>,
    ) -> Result<Arc<Self>, ApiError> {
        let converted = Self::from_object(resource, object, self.revision, &self.budget)?;
        Ok(self.keep(converted.size(), |derived| {
            derived.versions.push(Arc::clone(&converted));
            converted
        }))
    }

    /// The object in the version of `resource`, made once for all who ask.
    pub fn in_version(self: &Arc<Self>, resource: &'static dyn Resource) -> Result<Arc<Self>, ApiError> {
        if let Some(known) = self.known_version(resource) {
            return Ok(known);
        }
        self.keep_version(resource, resource.from_storage(self.decode()?).map_err(broken)?)
    }
}
