//! Clusters as text: a line per object, `kind name key=value ... | {yaml}`, the YAML laid over what the keys made.

use api::core::v1::{Node, Pod};
use scheduler::{Decision, Fact, PodInfo, Profile, Snapshot, Turn, decide, explain};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Reads a cluster. A line `pod` without `on=` is the pod to schedule, and must come last.
pub fn read(text: &str) -> (Snapshot, Option<Arc<PodInfo>>) {
    let (mut snapshot, mut waiting) = (Snapshot::new(), None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, yaml) = line.split_once(" | ").unwrap_or((line, "{}"));
        let mut words = head.split_whitespace();
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let mut object = match kind {
            "node" => node(name, words),
            "pod" => pod(name, words),
            _ => named(name),
        };
        let over: Value =
            serde_json::from_slice(&api::codec::yaml_to_json(yaml.as_bytes()).expect(line)).unwrap();
        lay_over(&mut object, over);
        match kind {
            "node" => drop(snapshot.set_node(Arc::new(object_of::<Node>(&object)))),
            "pod" => {
                let pod = object_of::<Pod>(&object);
                if pod.spec.node_name.is_empty() {
                    let info = Arc::new(PodInfo::new(Arc::new(pod)));
                    let node = info.pod.status.nominated_node_name.clone();
                    snapshot.nominate(&info, (!node.is_empty()).then_some(node.as_str()));
                    waiting = Some(info);
                } else {
                    snapshot.with(Arc::new(pod));
                }
            }
            kind => snapshot.set_fact(match kind {
                "namespace" => Fact::Namespace(Arc::new(object_of(&object))),
                "service" => Fact::Service(Arc::new(object_of(&object))),
                "replicaset" => Fact::ReplicaSet(Arc::new(object_of(&object))),
                "claim" => Fact::Claim(Arc::new(object_of(&object))),
                "volume" => Fact::Volume(Arc::new(object_of(&object))),
                "class" => Fact::Class(Arc::new(object_of(&object))),
                "csinode" => Fact::CsiNode(Arc::new(object_of(&object))),
                "driver" => Fact::Driver(Arc::new(object_of(&object))),
                "capacity" => Fact::Capacity(Arc::new(object_of(&object))),
                "budget" => Fact::Budget(Arc::new(object_of(&object))),
                other => panic!("{other:?} is no kind"),
            }),
        }
    }
    (snapshot, waiting)
}

/// The table of nodes for the waiting pod, and the decision.
pub fn table(text: &str) -> String {
    let (snapshot, pod) = read(text);
    let (pod, profile) = (pod.expect("a waiting pod"), Profile::default());
    let decision = match decide(&snapshot, &profile, &pod, Turn::default()) {
        Decision::Bind { node, .. } => format!("bind {node}"),
        Decision::Unschedulable(why) => format!("{} [{}]", why.message, why.plugins.join(" ")),
        Decision::Nominate { node, victims, why } => {
            let victims: Vec<&str> = victims.iter().map(|pod| pod.pod.metadata.name.as_str()).collect();
            format!("{}\nnominate {node}, evict {}", why.message, victims.join(" "))
        }
    };
    format!("{}-> {decision}\n", explain(&snapshot, &profile, &pod))
}

fn object_of<T: meta::Message + Default>(value: &Value) -> T {
    api::codec::from_value(value).expect("a fixture is well formed")
}

fn named(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}/{name}")}})
}

fn node<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Value {
    let mut labels = Map::from_iter([("kubernetes.io/hostname".to_owned(), json!(name))]);
    let mut allocatable = Map::from_iter([
        ("cpu".to_owned(), json!("4")),
        ("memory".to_owned(), json!("8Gi")),
        ("pods".to_owned(), json!("110")),
    ]);
    let (mut taints, mut images, mut unschedulable) = (Vec::new(), Vec::new(), false);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "cordoned" => unschedulable = true,
            "zone" => drop(labels.insert("topology.kubernetes.io/zone".into(), json!(value))),
            "taint" => {
                let (taint, effect) = value.rsplit_once(':').unwrap();
                let (key, value) = taint.split_once('=').unwrap_or((taint, ""));
                taints.push(json!({"key": key, "value": value, "effect": effect}));
            }
            "image" => {
                let (name, mib) = value.rsplit_once('@').unwrap();
                images.push(json!({"names": [name], "sizeBytes": mib.parse::<i64>().unwrap() << 20}));
            }
            _ if key.starts_with("label:") => drop(labels.insert(key[6..].into(), json!(value))),
            _ => drop(allocatable.insert(key.into(), json!(value))),
        }
    }
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": unschedulable},
        "status": {"allocatable": allocatable, "images": images},
    })
}

fn pod<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Value {
    let mut object = named(name);
    let (mut labels, mut requests, mut ports) = (Map::new(), Map::new(), Vec::new());
    let (mut spec, mut image) = (Map::new(), "");
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "on" => drop(spec.insert("nodeName".into(), json!(value))),
            "priority" => drop(spec.insert("priority".into(), json!(value.parse::<i32>().unwrap()))),
            "port" => ports.push(json!({"hostPort": value.parse::<i32>().unwrap(), "containerPort": 1})),
            "image" => image = value,
            _ if key.starts_with("label:") => drop(labels.insert(key[6..].into(), json!(value))),
            _ => drop(requests.insert(key.into(), json!(value))),
        }
    }
    let container = json!({"name": "c", "image": image, "resources": {"requests": requests}, "ports": ports});
    spec.insert("containers".into(), json!([container]));
    object["metadata"]["labels"] = Value::Object(labels);
    object["spec"] = Value::Object(spec);
    object
}

fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}
