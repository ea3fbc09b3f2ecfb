//! Claims without a class get the default one, ingresses too; and what is in use is protected where that is asked for.

use super::Chain;
use api::Object;
use api::core::v1::PersistentVolumeClaim;
use api::errors::ApiError;
use api::meta::v1::ObjectMeta;
use api::networking::v1::{Ingress, IngressClass};
use api::storage::v1::{StorageClass, VolumeAttributesClass};
use registry::{Attributes, Operation};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_INGRESS_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

impl Chain {
    pub(super) async fn admit_storage(
        &self,
        attributes: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), ApiError> {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        if self.has("DefaultStorageClass")
            && let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>()
        {
            let chosen = claim.spec.storage_class_name.is_some()
                || claim.metadata.annotations.contains_key(CLASS_BETA);
            if !chosen {
                let classes = self.list::<StorageClass>("").await?;
                claim.spec.storage_class_name = default_of(
                    classes.into_iter().map(|class| class.metadata),
                    &[DEFAULT_CLASS, DEFAULT_CLASS_BETA],
                );
            }
        }
        if self.has("StorageObjectInUseProtection") {
            let finalizer = if object.is::<PersistentVolumeClaim>() {
                "kubernetes.io/pvc-protection"
            } else if object.is::<VolumeAttributesClass>() {
                "kubernetes.io/vac-protection"
            } else {
                "kubernetes.io/pv-protection"
            };
            let finalizers = &mut object.metadata_mut().finalizers;
            if !finalizers.iter().any(|known| known == finalizer) {
                finalizers.push(finalizer.into());
            }
        }
        Ok(())
    }

    /// Only a bound claim grows, and only where its class says that it may.
    pub(super) async fn check_resize(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        if !self.has("PersistentVolumeClaimResize") || attributes.operation != Operation::Update {
            return Ok(());
        }
        let (Some(new), Some(old)) = (
            object.downcast::<PersistentVolumeClaim>(),
            attributes.old.and_then(|old| old.downcast::<PersistentVolumeClaim>()),
        ) else {
            return Ok(());
        };
        let size = |claim: &PersistentVolumeClaim| {
            claim.spec.resources.requests.get("storage").copied().unwrap_or_default()
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.status.phase != "Bound" {
            let text = "Only bound persistent volume claims can be expanded";
            return Err(super::forbidden(attributes, Some(object), text));
        }
        let class = |claim: &PersistentVolumeClaim| {
            let by_annotation = claim.metadata.annotations.get(CLASS_BETA);
            by_annotation.or(claim.spec.storage_class_name.as_ref()).cloned().unwrap_or_default()
        };
        let name = class(new);
        let allowed = !name.is_empty()
            && name == class(old)
            && self
                .get::<StorageClass>("", &name)
                .await?
                .is_some_and(|class| class.allow_volume_expansion == Some(true));
        if allowed {
            return Ok(());
        }
        let text = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                    support resize";
        Err(super::forbidden(attributes, Some(object), text))
    }

    pub(super) async fn default_ingress_class(
        &self,
        attributes: &Attributes<'_>,
        object: &mut dyn Object,
    ) -> Result<(), ApiError> {
        let Some(ingress) = object.downcast_mut::<Ingress>() else { return Ok(()) };
        let chosen = ingress.spec.ingress_class_name.is_some()
            || ingress.metadata.annotations.contains_key("kubernetes.io/ingress.class");
        if chosen || attributes.operation != Operation::Create || !self.has("DefaultIngressClass") {
            return Ok(());
        }
        let classes = self.list::<IngressClass>("").await?;
        ingress.spec.ingress_class_name =
            default_of(classes.into_iter().map(|class| class.metadata), &[DEFAULT_INGRESS_CLASS]);
        Ok(())
    }
}

/// The name of the class marked as default: the newest of several.
fn default_of(classes: impl Iterator<Item = ObjectMeta>, marks: &[&str]) -> Option<String> {
    let marked = classes.filter(|class| {
        marks.iter().any(|mark| class.annotations.get(*mark).is_some_and(|value| value == "true"))
    });
    marked
        .max_by(|a, b| a.creation_timestamp.cmp(&b.creation_timestamp).then_with(|| b.name.cmp(&a.name)))
        .map(|class| class.name)
}
