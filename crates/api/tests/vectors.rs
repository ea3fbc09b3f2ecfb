//! Upstream's published vectors of every kind: JSON and protobuf, each read and written, and read across.
//!
//! They lie beside the project, not in it: where the folder is absent the test says so and passes.

use meta::Message;
use meta::json::Notes;
use std::path::{Path, PathBuf};

/// Vectors that cannot come back equal, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/api-1.36/vectors");
    beside.is_dir().then_some(beside)
}

/// An empty message of the kind that the vector states. The frame of a watch states none.
fn empty(json: &serde_json::Value) -> Result<Box<dyn Message>, String> {
    let part = |key: &str| json[key].as_str().unwrap_or_default().to_string();
    if json.get("kind").is_none() && json.get("type").is_some() {
        return Ok(Box::new(api::meta::v1::WatchEvent::default()));
    }
    let kind =
        api::codec::find_kind(&part("apiVersion"), &part("kind")).map_err(|error| error.to_string())?;
    Ok((kind.message)())
}

fn read_json(mut message: Box<dyn Message>, text: &[u8]) -> Result<Box<dyn Message>, String> {
    let mut notes = Notes::default();
    meta::json::decode(&mut *message, text, &mut notes).map_err(|error| format!("JSON: {error}"))?;
    if notes.0.is_empty() { Ok(message) } else { Err(format!("JSON: {:?}", notes.0)) }
}

fn read_protobuf(mut message: Box<dyn Message>, bytes: &[u8]) -> Result<Box<dyn Message>, String> {
    let envelope = api::codec::open(bytes).map_err(|error| error.to_string())?;
    meta::proto::merge(&mut *message, envelope.raw).map_err(|error| format!("protobuf: {error}"))?;
    Ok(message)
}

/// Where two trees first differ, as a path.
fn difference(left: &serde_json::Value, right: &serde_json::Value, path: &str) -> Option<String> {
    use serde_json::Value::{Array, Object};
    match (left, right) {
        (Object(left), Object(right)) => {
            left.keys().chain(right.keys()).find_map(|key| match (left.get(key), right.get(key)) {
                (Some(a), Some(b)) => difference(a, b, &format!("{path}.{key}")),
                (a, b) => Some(format!("{path}.{key}: {a:?} against {b:?}")),
            })
        }
        (Array(left), Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(at, (a, b))| difference(a, b, &format!("{path}[{at}]"))),
        _ if left == right => None,
        _ => Some(format!("{path}: {left} against {right}")),
    }
}

fn check(json_text: &[u8], protobuf: Option<&[u8]>) -> Result<(), String> {
    let json: serde_json::Value = serde_json::from_slice(json_text).map_err(|error| error.to_string())?;
    let from_json = read_json(empty(&json)?, json_text)?;
    let again: serde_json::Value =
        serde_json::from_slice(&api::codec::to_json(&*from_json)).map_err(|error| error.to_string())?;
    if let Some(at) = difference(&json, &again, "") {
        return Err(format!("JSON to JSON: {at}"));
    }
    let Some(protobuf) = protobuf else { return Ok(()) };
    let from_protobuf = read_protobuf(empty(&json)?, protobuf)?;
    let across: serde_json::Value =
        serde_json::from_slice(&api::codec::to_json(&*from_protobuf)).map_err(|error| error.to_string())?;
    if let Some(at) = difference(&json, &across, "") {
        return Err(format!("protobuf to JSON: {at}"));
    }
    for (name, message) in [("protobuf", &from_protobuf), ("JSON", &from_json)] {
        let written = api::codec::to_protobuf(&**message);
        if written != protobuf {
            let at = written
                .iter()
                .zip(protobuf)
                .position(|(a, b)| a != b)
                .unwrap_or(written.len().min(protobuf.len()));
            return Err(format!("{name} to protobuf: byte {at} of {} differs", protobuf.len()));
        }
    }
    Ok(())
}

#[test]
fn every_vector_comes_back_equal() {
    let Some(folder) = folder() else {
        eprintln!("skipped: upstream's vectors are not beside this checkout");
        return;
    };
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder was just seen")
        .filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok()?.strip_suffix(".json").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() > 150, "only {} vectors in {}", names.len(), folder.display());
    let mut faults = Vec::new();
    for name in &names {
        let json = std::fs::read(folder.join(format!("{name}.json"))).expect("listed above");
        let protobuf = std::fs::read(folder.join(format!("{name}.pb"))).ok();
        let excused = EXCEPTIONS.iter().any(|(known, _)| known == name);
        match check(&json, protobuf.as_deref()) {
            Err(fault) if !excused => faults.push(format!("{name}: {fault}")),
            Ok(()) if excused => faults.push(format!("{name} is excused but comes back equal")),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{} of {} vectors:\n{}", faults.len(), names.len(), faults.join("\n"));
}
