//! Decides how the store's vocabulary maps to etcd's messages and errors, and back.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Code, Status};

use super::proto;
use crate::error::Error;
use crate::types::{
    Compare, Comparison, Event, EventKind, KeyValue, Op, OpResponse, RangeRequest, RangeResponse, Target,
    Txn, TxnResponse,
};

pub(super) fn revision(header: Option<&proto::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

pub(super) fn range_request(request: RangeRequest) -> proto::RangeRequest {
    let RangeRequest { key, range_end, revision, limit, keys_only, count_only } = request;
    proto::RangeRequest { key, range_end, limit, revision, keys_only, count_only }
}

pub(super) fn range_response(response: proto::RangeResponse) -> RangeResponse {
    RangeResponse {
        revision: revision(response.header.as_ref()),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

/// Each key and value gets an allocation of its own: none keeps the whole answer's buffer alive.
fn key_value(kv: proto::KeyValue) -> Arc<KeyValue> {
    let exact = |bytes: Vec<u8>| Bytes::from(bytes.into_boxed_slice());
    Arc::new(KeyValue {
        key: exact(kv.key),
        value: exact(kv.value),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    })
}

pub(super) fn txn_request(txn: Txn) -> proto::TxnRequest {
    proto::TxnRequest {
        compare: txn.compares.into_iter().map(compare).collect(),
        success: txn.success.into_iter().map(request_op).collect(),
        failure: txn.failure.into_iter().map(request_op).collect(),
    }
}

fn compare(compare: Compare) -> proto::Compare {
    use proto::compare::Target as Union;
    let (target, union) = match compare.target {
        Target::Version(version) => (0, Union::Version(version)),
        Target::CreateRevision(revision) => (1, Union::CreateRevision(revision)),
        Target::ModRevision(revision) => (2, Union::ModRevision(revision)),
        Target::Value(value) => (3, Union::Value(value)),
        Target::Lease(lease) => (4, Union::Lease(lease)),
    };
    let result = match compare.result {
        Comparison::Equal => 0,
        Comparison::Greater => 1,
        Comparison::Less => 2,
        Comparison::NotEqual => 3,
    };
    proto::Compare { result, target, key: compare.key, union: Some(union) }
}

fn request_op(op: Op) -> proto::RequestOp {
    use proto::request_op::Request;
    let request = match op {
        Op::Range(request) => Request::Range(range_request(request)),
        Op::Put { key, value, lease, prev_kv } => {
            Request::Put(proto::PutRequest { key, value, lease, prev_kv })
        }
        Op::DeleteRange { key, range_end, prev_kv } => {
            Request::DeleteRange(proto::DeleteRangeRequest { key, range_end, prev_kv })
        }
    };
    proto::RequestOp { request: Some(request) }
}

pub(super) fn txn_response(response: proto::TxnResponse) -> Result<TxnResponse, Error> {
    let revision = revision(response.header.as_ref());
    let responses = response.responses.into_iter().map(|op| response_op(op, revision));
    Ok(TxnResponse {
        revision,
        succeeded: response.succeeded,
        responses: responses.collect::<Result<_, _>>()?,
    })
}

fn response_op(op: proto::ResponseOp, revision: i64) -> Result<OpResponse, Error> {
    use proto::response_op::Response;
    match op.response {
        // etcd leaves the header out of the answers inside a transaction.
        Some(Response::Range(range)) => {
            Ok(OpResponse::Range(RangeResponse { revision, ..range_response(range) }))
        }
        Some(Response::Put(put)) => Ok(OpResponse::Put { prev_kv: put.prev_kv.map(key_value) }),
        Some(Response::DeleteRange(delete)) => Ok(OpResponse::DeleteRange {
            deleted: delete.deleted,
            prev_kvs: delete.prev_kvs.into_iter().map(key_value).collect(),
        }),
        None => Err(Error::Unavailable("etcd answered a transaction with something unknown".into())),
    }
}

/// An event; `None` if it lacks its key.
pub(super) fn event(event: proto::Event) -> Option<Event> {
    let kind = if event.kind == proto::EventType::Delete as i32 { EventKind::Delete } else { EventKind::Put };
    Some(Event { kind, kv: key_value(event.kv?), prev_kv: event.prev_kv.map(key_value) })
}

/// etcd's refusals in the store's words. etcd tells its errors by their text.
pub(super) fn error(status: &Status) -> Error {
    let message = status.message();
    let text = message.strip_prefix("etcdserver: ").unwrap_or(message);
    match (status.code(), text) {
        (_, "mvcc: required revision has been compacted") => Error::Compacted { compact_revision: 0 },
        (_, "mvcc: required revision is a future revision") => Error::FutureRevision { current: 0 },
        (_, "requested lease not found") => Error::LeaseNotFound,
        (_, "lease already exists") => Error::LeaseExists,
        (_, "request is too large") => Error::RequestTooLarge,
        (_, "mvcc: database space exceeded" | "no space") => {
            Error::NoSpace(format!("etcd says: {message}; compact and defragment it or raise its quota"))
        }
        (Code::ResourceExhausted | Code::OutOfRange, text) if text.contains("larger than max") => {
            Error::RequestTooLarge
        }
        (Code::InvalidArgument, text) => Error::InvalidArgument(text.to_owned()),
        (code, _) => Error::Unavailable(format!("etcd: {message} ({code:?}){}", causes(status))),
    }
}

/// What lies behind a failure to talk to etcd at all, such as a refused connection.
fn causes(status: &Status) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = format!(": {error}");
        source = error.source();
    }
    text
}
