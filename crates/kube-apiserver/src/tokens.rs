//! TokenRequest: a signed token for a service account, bound to what it should die with.

use crate::filters::Passed;
use crate::respond::{self, Body};
use crate::verbs::{Target, read_body};
use crate::{Api, authn, decode, objects, parameters};
use api::Typed;
use api::authentication::v1::TokenRequest;
use api::core::v1::{Node, Pod, Secret, ServiceAccount};
use api::errors::ApiError;
use http::{Response, StatusCode};
use meta::field::{Errors, Path};
use meta::{ObjectKey, Time};
use pki::token::{Bound, Claims, Reference};

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// What the admission plugin asks for; such tokens live longer than they say, for clients that do not read them again.
pub const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

impl Api {
    pub(crate) async fn create_token(
        &self,
        passed: &mut Passed,
        target: &Target,
    ) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        parameters::write(passed, "CreateOptions")?;
        let body = read_body(passed).await?;
        let mut request = TokenRequest::default();
        decode::into(passed, &mut request, TokenRequest::gvk(), &body)?;
        self.admit_own(passed, target, registry::Operation::Create, &mut request, None).await?;
        let Some(signer) = &self.signer else {
            return Err(ApiError::not_found("", "serviceaccounts/token", &target.key.name));
        };
        let account: ServiceAccount = self.find(&target.key).await?;
        fill(&mut request, &target.key, self.authn.verifier.as_ref().map_or(&[], |v| v.audiences()))?;
        let bound = self.bound(&request, &account).await?;
        let runs_on = match &bound {
            Bound::Pod(_, node) => node.as_ref().map(|node| node.name.as_str()),
            _ => None,
        };
        let who = &passed.request.user;
        let user = authz::User { name: &who.name, groups: &who.groups };
        crate::admission::restrict_token(user, &request, runs_on)
            .map_err(|why| ApiError::forbidden("", "serviceaccounts", &target.key.name, why))?;
        let wanted = request.spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let most = self.options.service_account_max_token_expiration.as_secs() as i64;
        let mut seconds = if most > 0 { wanted.min(most) } else { wanted };
        let mut warn_after = None;
        let now = authn::now();
        let pod = matches!(bound, Bound::Pod(..));
        if self.options.service_account_extend_token_expiration && pod && wanted == WARN_ONLY_SECONDS {
            warn_after = Some(now + seconds);
            seconds = EXTENDED_SECONDS;
        }
        let reference = Reference { name: account.metadata.name.clone(), uid: account.metadata.uid.clone() };
        let mut claims = Claims::for_service_account(
            &self.issuer,
            &target.key.namespace,
            reference,
            bound,
            request.spec.audiences.clone(),
            now,
            seconds,
        );
        claims.kubernetes.warnafter = warn_after;
        request.status.token = signer.sign(&claims).map_err(ApiError::internal)?;
        let told = warn_after.unwrap_or(now + seconds);
        request.status.expiration_timestamp = Time::from_seconds(told);
        request.metadata.name = target.key.name.clone();
        request.metadata.namespace = target.key.namespace.clone();
        request.metadata.creation_timestamp = Time::from_seconds(now);
        Ok(respond::message(StatusCode::CREATED, &request, output))
    }

    /// Resolves what the token is bound to, checking that it is the account's.
    async fn bound(&self, request: &TokenRequest, account: &ServiceAccount) -> Result<Bound, ApiError> {
        let Some(wanted) = request.spec.bound_object_ref.as_deref() else { return Ok(Bound::Nothing) };
        let namespace = &account.metadata.namespace;
        let key = ObjectKey::new(namespace.clone(), wanted.name.clone());
        let matching = |uid: &str, kind: &str| {
            if wanted.uid.is_empty() || wanted.uid == uid {
                return Ok(Reference { name: wanted.name.clone(), uid: uid.to_string() });
            }
            Err(ApiError::conflict(
                "",
                kind,
                &wanted.name,
                format!(
                    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                    wanted.uid
                ),
            ))
        };
        match (wanted.api_version.as_str(), wanted.kind.as_str()) {
            ("v1", "Pod") => {
                let pod: Pod = self.find(&key).await?;
                let reference = matching(&pod.metadata.uid, "pods")?;
                if pod.spec.service_account_name != account.metadata.name {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        account.metadata.name
                    )));
                }
                Ok(Bound::Pod(reference, self.node_of(&pod).await?))
            }
            ("v1", "Secret") => {
                let secret: Secret = self.find(&key).await?;
                Ok(Bound::Secret(matching(&secret.metadata.uid, "secrets")?))
            }
            ("v1", "Node") => {
                let node: Node = self.find(&ObjectKey::cluster(wanted.name.clone())).await?;
                Ok(Bound::Node(matching(&node.metadata.uid, "nodes")?))
            }
            (version, kind) => Err(ApiError::bad_request(format!(
                "cannot bind token to object of type /{version}, Kind={kind}"
            ))),
        }
    }

    async fn node_of(&self, pod: &Pod) -> Result<Option<Reference>, ApiError> {
        if pod.spec.node_name.is_empty() {
            return Ok(None);
        }
        let key = ObjectKey::cluster(pod.spec.node_name.clone());
        let node = objects::get::<Node>(&self.registry, &key).await?;
        let uid = node.map(|node| node.metadata.uid).unwrap_or_default();
        Ok(Some(Reference { name: pod.spec.node_name.clone(), uid }))
    }
}

/// Defaults and checks of a request.
fn fill(request: &mut TokenRequest, key: &ObjectKey, audiences: &[String]) -> Result<(), ApiError> {
    let metadata = &request.metadata;
    if !metadata.name.is_empty() && metadata.name != key.name {
        return Err(ApiError::bad_request(format!(
            "metadata.name: {:?} does not match the name of the service account {:?}",
            metadata.name, key.name
        )));
    }
    if request.spec.audiences.is_empty() {
        request.spec.audiences = audiences.to_vec();
    }
    let seconds = *request.spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    let path = Path::new("spec").child("expirationSeconds");
    let mut errors = Errors::default();
    if seconds < MIN_SECONDS {
        errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &errors))
    }
}
