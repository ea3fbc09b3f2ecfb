//! A plan as text, for people and for tests: one line a step, its body as JSON.

use crate::plan::{Action, Errand, Note, Plan, Step};
use api::Object;
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for event in &self.events {
            writeln!(f, "event {event}")?;
        }
        if let Some(wait) = self.again {
            writeln!(f, "again in {} ms", wait.as_millis())?;
        }
        if self.is_empty() && self.again.is_none() {
            writeln!(f, "nothing")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action)?;
        if let Some(note) = &self.done {
            write!(f, "\n  then {note}")?;
        }
        if let Some(note) = &self.failed {
            write!(f, "\n  else {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = if self.warning { "Warning" } else { "Normal" };
        write!(f, "{sort} {} on {} {}: {}", self.reason, self.about.kind, self.about.name, self.message)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Create(object) => write!(f, "create {}", body(object.as_ref())),
            Action::Update(object) => write!(f, "update {}", body(object.as_ref())),
            Action::UpdateSub { object, subresource } => {
                let value = api::codec::to_value(object.as_dyn());
                let part = if *subresource == "status" { &value["status"] } else { &value };
                write!(f, "update {}/{subresource} {}: {part}", object.gvk().kind, object.metadata().name)
            }
            Action::Patch { target, subresource, body, .. } => {
                write!(f, "patch {} {}", target.resource.kind, target.key)?;
                if !subresource.is_empty() {
                    write!(f, "/{subresource}")?;
                }
                write!(f, ": {body}")
            }
            Action::Delete { target, propagation, grace_seconds } => {
                write!(f, "delete {} {}", target.resource.kind, target.key)?;
                if let Some(propagation) = propagation {
                    write!(f, " {propagation:?}")?;
                }
                if let Some(seconds) = grace_seconds {
                    write!(f, " within {seconds} s")?;
                }
                Ok(())
            }
            Action::Rescale { target, scale } => {
                write!(f, "scale {} {} to {}", target.resource.kind, target.key, scale.spec.replicas)
            }
            Action::Review(review) => {
                write!(f, "review {}", api::codec::to_value(review.as_ref() as &dyn meta::Message)["spec"])
            }
            Action::Query(paths) => write!(f, "query {}", paths.join(" ")),
            Action::Errand(Errand::SignCertificate { signer, usages, seconds, .. }) => {
                write!(f, "sign a certificate by {signer} for {seconds} s: {}", usages.join(", "))
            }
            Action::Errand(Errand::SignToken { account, secret, .. }) => {
                write!(f, "sign a token of {account} for {secret}")
            }
            Action::ClearNamespace { name } => write!(f, "clear namespace {name}"),
        }
    }
}

fn body(object: &dyn Object) -> String {
    let mut value = api::codec::to_value(object.as_dyn());
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    format!("{} {value}", object.gvk().kind)
}
