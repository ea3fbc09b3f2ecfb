//! What every kind has: its identity, and for objects their metadata.

use crate::generated::meta::v1::ObjectMeta;
use meta::{Descriptor, Gvk, Message};
use std::any::Any;

/// A message that states kind and apiVersion.
pub trait Typed: Message + Default {
    const DESCRIPTOR: &'static Descriptor;

    fn gvk() -> Gvk {
        Self::DESCRIPTOR.gvk.expect("codegen gives every typed message its kind")
    }
}

/// A typed message with metadata, of any kind.
pub trait Object: Message + Any {
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    fn clone_object(&self) -> Box<dyn Object>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// Takes the place of `self`; `false`, and nothing done, when `from` is of another type.
    fn assign(&mut self, from: Box<dyn Object>) -> bool;
    fn as_dyn(&self) -> &dyn Message;
    fn as_dyn_mut(&mut self) -> &mut dyn Message;
}

impl dyn Object {
    pub fn gvk(&self) -> Gvk {
        self.descriptor().gvk.expect("codegen gives every object its kind")
    }
    pub fn is<T: Object>(&self) -> bool {
        self.as_any().is::<T>()
    }
    pub fn downcast<T: Object>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }
    pub fn downcast_mut<T: Object>(&mut self) -> Option<&mut T> {
        self.as_any_mut().downcast_mut()
    }
}

/// Gives a generated kind its `Object`.
#[macro_export]
macro_rules! object {
    ($name:ident) => {
        impl $crate::Object for $name {
            fn metadata(&self) -> &$crate::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut $crate::meta::v1::ObjectMeta {
                &mut self.metadata
            }
            fn clone_object(&self) -> Box<dyn $crate::Object> {
                Box::new(self.clone())
            }
            fn as_any(&self) -> &dyn std::any::Any {
                self
            }
            fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
                self
            }
            fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
                self
            }
            fn assign(&mut self, from: Box<dyn $crate::Object>) -> bool {
                match from.into_any().downcast::<Self>() {
                    Ok(from) => {
                        *self = *from;
                        true
                    }
                    Err(_) => false,
                }
            }
            fn as_dyn(&self) -> &dyn Message {
                self
            }
            fn as_dyn_mut(&mut self) -> &mut dyn Message {
                self
            }
        }
    };
}

/// One kind: its descriptor and how to make an empty one.
pub struct Kind {
    pub descriptor: &'static Descriptor,
    pub message: fn() -> Box<dyn Message>,
    /// `None` for kinds without metadata, such as options and Status.
    pub object: Option<fn() -> Box<dyn Object>>,
}

/// Finds a kind. The core group serves the options and Status of meta as its own.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    crate::KINDS.iter().find(|known| {
        known
            .descriptor
            .gvk
            .is_some_and(|gvk| gvk.kind == kind && gvk.version == version && gvk.group == group)
    })
}

/// One resource as discovery names it.
#[derive(Debug)]
pub struct ResourceFacts {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub subresources: &'static [SubresourceFacts],
}

#[derive(Debug)]
pub struct SubresourceFacts {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}
