//! The typed client: each verb over any built-in kind, and over resources known from discovery only.

use crate::options::Query;
use crate::transport::{Response, Transport};
use crate::watch::{Encoding, Frames, ObjectWatcher, Watcher, decode_into};
use crate::{
    Config, CreateOptions, DeleteOptions, Error, GetOptions, ListOptions, Patch, PatchOptions, ResourcePath,
    UpdateOptions, WatchOptions, Wire,
};
use api::errors::ApiError;
use api::meta::v1::{ListMeta, ObjectMeta, PartialObjectMetadata, Status};
use api::{Object, Typed, codec};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use meta::{ObjectKey, proto};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The largest answer gathered in memory; a page of a list stays far below.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// How long one call may take; the server's own limit is 60 s.
const CALL_SECONDS_MAX: u64 = 65;
/// How often a call is repeated that the server asks to repeat (429 and 503 with Retry-After), as upstream's client.
const REPEATS_MAX: u32 = 10;
/// The longest wait between repeats that is taken from Retry-After.
const RETRY_AFTER_SECONDS_MAX: u64 = 30;
/// Objects a page when everything is listed.
const PAGE: i64 = 500;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";
const ACCEPT: &str = "application/vnd.kubernetes.protobuf, application/json";
const ACCEPT_WATCH: &str =
    "application/vnd.kubernetes.protobuf;stream=watch, application/json;stream=watch, application/json";
const ACCEPT_METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json";
const ACCEPT_METADATA_OBJECT: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";

/// A page of objects, or all of them.
#[derive(Clone, Debug)]
pub struct List<T> {
    /// The revision of the snapshot that was listed.
    pub resource_version: String,
    /// Where the next page begins; empty on the last.
    pub continue_token: String,
    pub remaining: Option<i64>,
    pub items: Vec<T>,
}

/// What a delete left.
#[derive(Clone, Debug)]
pub enum Deleted<T> {
    /// The object still exists, marked: finalizers or its grace period hold it.
    Pending(Box<T>),
    /// It is gone.
    Gone,
}

/// Speaks to one API server with one identity. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: Arc<str>,
}

/// An answer gathered in memory.
pub(crate) struct Answer {
    content_type: String,
    body: Bytes,
}

impl Client {
    /// A client over any transport.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Client { transport, user_agent: Arc::from(concat!("timonel/", env!("CARGO_PKG_VERSION"))) }
    }

    /// A client over TLS, as the current context of a kubeconfig says.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(Arc::new(Wire::new(Config::from_kubeconfig(path)?)?)))
    }

    /// The same client under the name of a component, which the server records as field manager and in its logs.
    pub fn with_user_agent(&self, user_agent: &str) -> Self {
        Client { transport: self.transport.clone(), user_agent: Arc::from(user_agent) }
    }

    /// Sends any request; the URI is path and query.
    pub async fn raw(&self, request: http::Request<Bytes>) -> Result<Response, Error> {
        self.transport.send(request).await
    }

    /// The body of a successful GET, as text: `/healthz`, `/version`, discovery.
    pub async fn get_text(&self, path: &str) -> Result<String, Error> {
        let answer = self.call(Method::GET, path, JSON, None).await?;
        String::from_utf8(answer.body.to_vec()).map_err(|error| Error::Decode(error.to_string()))
    }

    pub async fn get<T: Typed + Object>(&self, key: &ObjectKey) -> Result<T, Error> {
        self.get_with(key, &GetOptions::default()).await
    }

    pub async fn get_with<T: Typed + Object>(
        &self,
        key: &ObjectKey,
        options: &GetOptions,
    ) -> Result<T, Error> {
        let mut query = Query::default();
        query.add("resourceVersion", &options.resource_version);
        let path = self.object_path::<T>(key, "", query)?;
        decode(&self.call(Method::GET, &path, ACCEPT, None).await?)
    }

    /// One page; `namespace` "" lists all namespaces.
    pub async fn list<T: Typed + Object>(
        &self,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List<T>, Error> {
        let path = format!("{}{}", ResourcePath::of::<T>()?.collection(namespace), options.query().finish());
        decode_list(&self.call(Method::GET, &path, ACCEPT, None).await?)
    }

    /// All pages of one snapshot.
    pub async fn list_all<T: Typed + Object>(
        &self,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List<T>, Error> {
        let mut options = ListOptions { limit: Some(options.limit.unwrap_or(PAGE)), ..options.clone() };
        let mut list = self.list::<T>(namespace, &options).await?;
        while !list.continue_token.is_empty() {
            options.continue_token = std::mem::take(&mut list.continue_token);
            options.resource_version.clear();
            options.resource_version_match.clear();
            let page = self.list::<T>(namespace, &options).await?;
            list.items.extend(page.items);
            list.continue_token = page.continue_token;
        }
        list.remaining = None;
        Ok(list)
    }

    /// Follows a collection; `namespace` "" follows all namespaces.
    pub async fn watch<T: Typed + Object>(
        &self,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<Watcher<T>, Error> {
        let path = ResourcePath::of::<T>()?;
        Ok(Watcher::new(self.watch_frames(&path, namespace, options, ACCEPT_WATCH).await?))
    }

    pub async fn create<T: Typed + Object>(&self, object: &T) -> Result<T, Error> {
        self.create_with(object, &CreateOptions::default()).await
    }

    pub async fn create_with<T: Typed + Object>(
        &self,
        object: &T,
        options: &CreateOptions,
    ) -> Result<T, Error> {
        let path = format!(
            "{}{}",
            ResourcePath::of::<T>()?.collection(&object.metadata().namespace),
            options.query().finish()
        );
        decode(&self.call(Method::POST, &path, ACCEPT, Some(protobuf(object.as_dyn()))).await?)
    }

    /// Replaces the object; its resourceVersion, where set, must be the current one.
    pub async fn update<T: Typed + Object>(&self, object: &T) -> Result<T, Error> {
        self.update_with(object, &UpdateOptions::default()).await
    }

    pub async fn update_with<T: Typed + Object>(
        &self,
        object: &T,
        options: &UpdateOptions,
    ) -> Result<T, Error> {
        let path = self.object_path::<T>(&view::key_of(object), "", options.query())?;
        decode(&self.call(Method::PUT, &path, ACCEPT, Some(protobuf(object.as_dyn()))).await?)
    }

    /// Replaces the status and nothing else.
    pub async fn update_status<T: Typed + Object>(&self, object: &T) -> Result<T, Error> {
        let path = self.object_path::<T>(&view::key_of(object), "status", Query::default())?;
        decode(&self.call(Method::PUT, &path, ACCEPT, Some(protobuf(object.as_dyn()))).await?)
    }

    pub async fn patch<T: Typed + Object>(
        &self,
        key: &ObjectKey,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<T, Error> {
        self.patch_subresource(key, "", patch, options).await
    }

    pub async fn patch_status<T: Typed + Object>(
        &self,
        key: &ObjectKey,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<T, Error> {
        self.patch_subresource(key, "status", patch, options).await
    }

    pub async fn patch_subresource<T: Typed + Object>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<T, Error> {
        let path = self.object_path::<T>(key, subresource, options.query())?;
        let body = (patch.content_type(), Bytes::from(patch.document().to_string()));
        decode(&self.call(Method::PATCH, &path, ACCEPT, Some(body)).await?)
    }

    pub async fn delete<T: Typed + Object>(
        &self,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted<T>, Error> {
        let path = self.object_path::<T>(key, "", Query::default())?;
        let body = (JSON, Bytes::from(options.body()));
        let answer = self.call(Method::DELETE, &path, ACCEPT, Some(body)).await?;
        deleted(&answer)
    }

    /// Deletes every object of a namespace ("" for all) that the selectors match.
    pub async fn delete_collection<T: Typed + Object>(
        &self,
        namespace: &str,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        self.delete_collection_at(&ResourcePath::of::<T>()?, namespace, selection, options).await
    }

    /// Creates a subresource: `binding` or `eviction` of a pod, `token` of a service account.
    pub async fn create_subresource<T: Typed + Object, B: Typed, R: Typed>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &B,
    ) -> Result<R, Error> {
        let path = self.object_path::<T>(key, subresource, Query::default())?;
        decode(&self.call(Method::POST, &path, ACCEPT, Some(protobuf(body))).await?)
    }

    // === resources known by their place only ===

    /// One page of metadata; `namespace` "" lists all namespaces.
    pub async fn list_metadata_at(
        &self,
        path: &ResourcePath,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<List<PartialObjectMetadata>, Error> {
        let path = format!("{}{}", path.collection(namespace), options.query().finish());
        decode_list(&self.call(Method::GET, &path, ACCEPT_METADATA, None).await?)
    }

    pub async fn get_metadata_at(
        &self,
        path: &ResourcePath,
        key: &ObjectKey,
    ) -> Result<PartialObjectMetadata, Error> {
        let path = path.object(&key.namespace, &key.name, "")?;
        decode(&self.call(Method::GET, &path, ACCEPT_METADATA_OBJECT, None).await?)
    }

    pub async fn patch_metadata_at(
        &self,
        path: &ResourcePath,
        key: &ObjectKey,
        patch: &Patch,
    ) -> Result<PartialObjectMetadata, Error> {
        let path = path.object(&key.namespace, &key.name, "")?;
        let body = (patch.content_type(), Bytes::from(patch.document().to_string()));
        decode(&self.call(Method::PATCH, &path, ACCEPT_METADATA_OBJECT, Some(body)).await?)
    }

    pub async fn delete_at(
        &self,
        path: &ResourcePath,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted<PartialObjectMetadata>, Error> {
        let path = path.object(&key.namespace, &key.name, "")?;
        let body = (JSON, Bytes::from(options.body()));
        deleted(&self.call(Method::DELETE, &path, ACCEPT_METADATA_OBJECT, Some(body)).await?)
    }

    pub async fn delete_collection_at(
        &self,
        path: &ResourcePath,
        namespace: &str,
        selection: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = format!("{}{}", path.collection(namespace), selection.query().finish());
        let body = (JSON, Bytes::from(options.body()));
        self.call(Method::DELETE, &path, JSON, Some(body)).await.map(drop)
    }

    // === writes of objects whose kind is known at run time only ===

    /// Creates an object of any built-in kind.
    pub async fn create_object(&self, object: &dyn Object) -> Result<Box<dyn Object>, Error> {
        let path = path_of(object)?.collection(&object.metadata().namespace);
        decode_as(object, &self.call(Method::POST, &path, ACCEPT, Some(protobuf(object.as_dyn()))).await?)
    }

    /// Replaces an object of any built-in kind, or a subresource of it (`status`, `finalize`).
    pub async fn update_object(
        &self,
        object: &dyn Object,
        subresource: &str,
    ) -> Result<Box<dyn Object>, Error> {
        let metadata = object.metadata();
        let path = path_of(object)?.object(&metadata.namespace, &metadata.name, subresource)?;
        decode_as(object, &self.call(Method::PUT, &path, ACCEPT, Some(protobuf(object.as_dyn()))).await?)
    }

    /// Replaces a subresource that has a kind of its own (`scale`); answers with the metadata of what stands now.
    pub async fn replace_at(
        &self,
        path: &ResourcePath,
        key: &ObjectKey,
        subresource: &str,
        body: &dyn meta::Message,
    ) -> Result<ObjectMeta, Error> {
        let path = path.object(&key.namespace, &key.name, subresource)?;
        let body = (JSON, Bytes::from(api::codec::to_value(body).to_string()));
        let answer = self.call(Method::PUT, &path, JSON, Some(body)).await?;
        decode::<PartialObjectMetadata>(&answer).map(|object| object.metadata)
    }

    /// Patches an object or a subresource; answers with the metadata of what stands now.
    pub async fn patch_at(
        &self,
        path: &ResourcePath,
        key: &ObjectKey,
        subresource: &str,
        patch: &Patch,
        options: &PatchOptions,
    ) -> Result<ObjectMeta, Error> {
        let path =
            format!("{}{}", path.object(&key.namespace, &key.name, subresource)?, options.query().finish());
        let body = (patch.content_type(), Bytes::from(patch.document().to_string()));
        let answer = self.call(Method::PATCH, &path, ACCEPT, Some(body)).await?;
        // Whatever the kind, its metadata stands in the same place.
        decode::<PartialObjectMetadata>(&answer).map(|object| object.metadata)
    }

    // === what reflectors use ===

    pub(crate) async fn watch_objects(
        &self,
        path: &ResourcePath,
        namespace: &str,
        options: &WatchOptions,
        new: fn() -> Box<dyn Object>,
        metadata_only: bool,
    ) -> Result<ObjectWatcher, Error> {
        let accept = if metadata_only {
            "application/vnd.kubernetes.protobuf;stream=watch;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
        } else {
            ACCEPT_WATCH
        };
        Ok(ObjectWatcher::new(self.watch_frames(path, namespace, options, accept).await?, new))
    }

    /// One page of objects of a kind known at run time only.
    pub(crate) async fn list_objects(
        &self,
        path: &ResourcePath,
        namespace: &str,
        options: &ListOptions,
        new: fn() -> Box<dyn Object>,
        metadata_only: bool,
    ) -> Result<List<Box<dyn Object>>, Error> {
        let path = format!("{}{}", path.collection(namespace), options.query().finish());
        let accept = if metadata_only { ACCEPT_METADATA } else { ACCEPT };
        let answer = self.call(Method::GET, &path, accept, None).await?;
        let mut items = Vec::new();
        let metadata = each_item(&answer, |bytes, encoding| {
            let mut object = new();
            match encoding {
                Encoding::Protobuf => proto::merge(object.as_dyn_mut(), bytes)
                    .map_err(|error| Error::Decode(error.to_string()))?,
                Encoding::Json => decode_into(object.as_dyn_mut(), bytes, encoding)?,
            }
            items.push(object);
            Ok(())
        })?;
        Ok(list_of(metadata, items))
    }

    async fn watch_frames(
        &self,
        path: &ResourcePath,
        namespace: &str,
        options: &WatchOptions,
        accept: &str,
    ) -> Result<Frames, Error> {
        let path = format!("{}{}", path.collection(namespace), options.query().finish());
        let request = self.request(Method::GET, &path, accept, None)?;
        let response = self.transport.send(request).await?;
        let content_type = content_type(&response);
        if response.status() != StatusCode::OK {
            let (status, answer) = gather(response).await?;
            return Err(failure(status, &answer));
        }
        Ok(Frames::new(response.into_body(), Encoding::of(&content_type)))
    }

    fn object_path<T: Typed + Object>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        query: Query,
    ) -> Result<String, Error> {
        let path = ResourcePath::of::<T>()?.object(&key.namespace, &key.name, subresource)?;
        Ok(path + &query.finish())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<http::Request<Bytes>, Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, &*self.user_agent);
        if let Some((content_type, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        request
            .body(body.map(|(_, bytes)| bytes).unwrap_or_default())
            .map_err(|error| Error::Request(error.to_string()))
    }

    /// Sends, repeats where the server asks for it, and turns an answer that is no success into an error.
    async fn call(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer, Error> {
        for repeat in 0.. {
            let request = self.request(method.clone(), path, accept, body.clone())?;
            let exchange = async { gather(self.transport.send(request).await?).await };
            let limit = Duration::from_secs(CALL_SECONDS_MAX);
            let (status, answer) = tokio::time::timeout(limit, exchange)
                .await
                .map_err(|_| Error::Timeout { seconds: CALL_SECONDS_MAX })??;
            if status.is_success() {
                return Ok(answer.answer);
            }
            match answer.retry_after {
                Some(seconds) if repeat < REPEATS_MAX && matches!(status.as_u16(), 429 | 503) => {
                    tokio::time::sleep(Duration::from_secs(seconds.min(RETRY_AFTER_SECONDS_MAX))).await;
                }
                _ => return Err(failure(status, &answer)),
            }
        }
        unreachable!("the last repeat returns")
    }
}

struct Gathered {
    answer: Answer,
    retry_after: Option<u64>,
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(header::CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
}

async fn gather(response: Response) -> Result<(StatusCode, Gathered), Error> {
    let status = response.status();
    let content_type = content_type(&response);
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let body =
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| match error
            .downcast::<Error>()
        {
            Ok(error) => *error,
            Err(_) => Error::TooLarge { limit: ANSWER_BYTES_MAX },
        })?;
    Ok((status, Gathered { answer: Answer { content_type, body: body.to_bytes() }, retry_after }))
}

/// The error that an answer of no success means: its Status, or its text where it carries none.
fn failure(status: StatusCode, gathered: &Gathered) -> Error {
    let mut object = Status::default();
    let encoding = Encoding::of(&gathered.answer.content_type);
    let decoded = decode_into(&mut object, &gathered.answer.body, encoding).is_ok();
    if decoded && object.code != 0 {
        return Error::Api(ApiError::from_status(&object));
    }
    let text = String::from_utf8_lossy(&gathered.answer.body);
    object.code = i32::from(status.as_u16());
    object.status = "Failure".into();
    object.reason = reason_of(status.as_u16()).into();
    object.message =
        if text.trim().is_empty() { status.to_string() } else { text.trim().chars().take(1024).collect() };
    Error::Api(ApiError::from_status(&object))
}

/// The reason that upstream's client gives to a bare HTTP code.
fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        500 => "InternalError",
        _ => "",
    }
}

fn protobuf(message: &dyn meta::Message) -> (&'static str, Bytes) {
    (PROTOBUF, Bytes::from(codec::to_protobuf(message)))
}

fn path_of(object: &dyn Object) -> Result<ResourcePath, Error> {
    let gvk = object.gvk();
    ResourcePath::of_kind(gvk.group, gvk.version, gvk.kind)
}

fn decode<T: Typed>(answer: &Answer) -> Result<T, Error> {
    let mut object = T::default();
    decode_into(&mut object, &answer.body, Encoding::of(&answer.content_type))?;
    Ok(object)
}

/// Decodes an answer of the kind of `like`.
fn decode_as(like: &dyn Object, answer: &Answer) -> Result<Box<dyn Object>, Error> {
    let gvk = like.gvk();
    let kind = api::kind(gvk.group, gvk.version, gvk.kind).and_then(|kind| kind.object);
    let new = kind.ok_or_else(|| Error::Request(format!("{} is no object", gvk.kind)))?;
    let mut object = new();
    decode_into(object.as_dyn_mut(), &answer.body, Encoding::of(&answer.content_type))?;
    Ok(object)
}

fn deleted<T: Typed>(answer: &Answer) -> Result<Deleted<T>, Error> {
    let encoding = Encoding::of(&answer.content_type);
    let kind = match encoding {
        Encoding::Protobuf => {
            codec::open(&answer.body).map_err(|error| Error::Decode(error.to_string()))?.kind
        }
        Encoding::Json => {
            #[derive(serde::Deserialize)]
            struct Shape {
                #[serde(default)]
                kind: String,
            }
            serde_json::from_slice::<Shape>(&answer.body)
                .map_err(|error| Error::Decode(error.to_string()))?
                .kind
        }
    };
    if kind == "Status" {
        Ok(Deleted::Gone)
    } else {
        decode(answer).map(|object| Deleted::Pending(Box::new(object)))
    }
}

/// Walks a list: its metadata, and the bytes of each item (in protobuf without an envelope).
fn each_item(
    answer: &Answer,
    mut item: impl FnMut(&[u8], Encoding) -> Result<(), Error>,
) -> Result<ListMeta, Error> {
    let encoding = Encoding::of(&answer.content_type);
    let mut metadata = ListMeta::default();
    match encoding {
        Encoding::Protobuf => {
            let envelope = codec::open(&answer.body).map_err(|error| Error::Decode(error.to_string()))?;
            let mut failed = None;
            proto::fields(envelope.raw, |tag, wire| {
                match tag {
                    1 => proto::merge(&mut metadata, wire.bytes()?)?,
                    2 if failed.is_none() => failed = item(wire.bytes()?, encoding).err(),
                    _ => {}
                }
                Ok(())
            })
            .map_err(|error| Error::Decode(error.to_string()))?;
            failed.map_or(Ok(()), Err)?;
        }
        Encoding::Json => {
            #[derive(serde::Deserialize)]
            struct Shape<'a> {
                #[serde(borrow)]
                metadata: Option<&'a serde_json::value::RawValue>,
                #[serde(borrow, default)]
                items: Option<Vec<&'a serde_json::value::RawValue>>,
            }
            let shape: Shape<'_> =
                serde_json::from_slice(&answer.body).map_err(|error| Error::Decode(error.to_string()))?;
            if let Some(text) = shape.metadata {
                decode_into(&mut metadata, text.get().as_bytes(), encoding)?;
            }
            for text in shape.items.unwrap_or_default() {
                item(text.get().as_bytes(), encoding)?;
            }
        }
    }
    Ok(metadata)
}

fn decode_list<T: Typed>(answer: &Answer) -> Result<List<T>, Error> {
    let mut items = Vec::new();
    let metadata = each_item(answer, |bytes, encoding| {
        let mut object = T::default();
        match encoding {
            Encoding::Protobuf => {
                proto::merge(&mut object, bytes).map_err(|error| Error::Decode(error.to_string()))?
            }
            Encoding::Json => decode_into(&mut object, bytes, encoding)?,
        }
        items.push(object);
        Ok(())
    })?;
    Ok(list_of(metadata, items))
}

fn list_of<T>(metadata: ListMeta, items: Vec<T>) -> List<T> {
    List {
        resource_version: metadata.resource_version,
        continue_token: metadata.r#continue,
        remaining: metadata.remaining_item_count,
        items,
    }
}
