//! Requests that are asked and answered but never stored: bindings, token reviews, access reviews.

use crate::Api;
use crate::filters::Passed;
use crate::negotiate::Output;
use crate::respond::{self, Body};
use crate::verbs::{Target, now};
use api::authentication::v1::{SelfSubjectReview, TokenReview, UserInfo as ApiUser};
use api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
    SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus,
};
use api::core::v1::Binding;
use api::errors::ApiError;
use api::{Object, Typed};
use authz::{Attributes, Decision, User};
use http::{Response, StatusCode};
use meta::StringList;
use meta::field::{Errors, Path};
use registry::UserInfo;

impl Api {
    /// Answers the create of a kind that has no place in the store.
    pub(crate) async fn act(
        &self,
        passed: &Passed,
        target: &Target,
        object: Box<dyn Object>,
        output: Output,
    ) -> Result<Response<Body>, ApiError> {
        if let Some(binding) = object.downcast::<Binding>().cloned() {
            let key = meta::ObjectKey::new(target.key.namespace.clone(), binding.metadata.name.clone());
            return self.bind(passed, &key, binding, output).await;
        }
        if let Some(review) = object.downcast::<TokenReview>().cloned() {
            return self.token_review(review, output).await;
        }
        let answer: Box<dyn Object> = self.reviewed(passed, target, object)?;
        Ok(respond::message(StatusCode::CREATED, answer.as_dyn(), output))
    }

    /// The reviews that are answered from the policy alone.
    fn reviewed(
        &self,
        passed: &Passed,
        target: &Target,
        mut object: Box<dyn Object>,
    ) -> Result<Box<dyn Object>, ApiError> {
        let user = &passed.request.user;
        if let Some(review) = object.downcast_mut::<SelfSubjectReview>() {
            review.metadata.creation_timestamp = Some(now());
            review.status.user_info = api_user(user);
        } else if let Some(review) = object.downcast_mut::<SubjectAccessReview>() {
            review.status = self.subject_review(&review.spec)?;
        } else if let Some(review) = object.downcast_mut::<LocalSubjectAccessReview>() {
            review.metadata.namespace = target.key.namespace.clone();
            check_local(review)?;
            review.status = self.subject_review(&review.spec)?;
        } else if let Some(review) = object.downcast_mut::<SelfSubjectAccessReview>() {
            let (resource, path) =
                (review.spec.resource_attributes.as_deref(), review.spec.non_resource_attributes.as_deref());
            check_attributes::<SelfSubjectAccessReview>(resource, path, None)?;
            review.status = self.review(user, resource, path);
        } else if let Some(review) = object.downcast_mut::<SelfSubjectRulesReview>() {
            self.rules_review(user, review)?;
        } else {
            let resource = target.resource;
            return Err(ApiError::method_not_supported(resource.group(), resource.plural(), "create"));
        }
        Ok(object)
    }

    async fn token_review(
        &self,
        mut review: TokenReview,
        output: Output,
    ) -> Result<Response<Body>, ApiError> {
        if review.spec.token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        match self.authn.by_token(&review.spec.token, &review.spec.audiences).await {
            Ok((user, audiences)) => {
                review.status.authenticated = true;
                review.status.user = api_user(&user);
                review.status.audiences = audiences;
            }
            Err(reason) => review.status.error = reason,
        }
        Ok(respond::message(StatusCode::CREATED, &review, output))
    }

    fn subject_review(
        &self,
        spec: &api::authorization::v1::SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, ApiError> {
        let (resource, path) = (spec.resource_attributes.as_deref(), spec.non_resource_attributes.as_deref());
        let named = !spec.user.is_empty() || !spec.groups.is_empty();
        check_attributes::<SubjectAccessReview>(resource, path, Some(named))?;
        let extra = spec.extra.iter().map(|(key, values)| (key.clone(), values.0.clone())).collect();
        let user =
            UserInfo { name: spec.user.clone(), uid: spec.uid.clone(), groups: spec.groups.clone(), extra };
        Ok(self.review(&user, resource, path))
    }

    fn review(
        &self,
        user: &UserInfo,
        resource: Option<&ResourceAttributes>,
        path: Option<&NonResourceAttributes>,
    ) -> SubjectAccessReviewStatus {
        let user = User { name: &user.name, groups: &user.groups };
        let blank = Attributes {
            user,
            verb: "",
            group: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            field_selector: &[],
        };
        let selector: Vec<(String, String)> = resource
            .and_then(|attributes| attributes.field_selector.as_deref())
            .map(|selector| selector.requirements.iter())
            .into_iter()
            .flatten()
            .filter(|term| term.operator == "In" && term.values.len() == 1)
            .map(|term| (term.key.clone(), term.values[0].clone()))
            .collect();
        let request = match (resource, path) {
            (Some(attributes), _) => Attributes {
                verb: &attributes.verb,
                group: &attributes.group,
                resource: &attributes.resource,
                subresource: &attributes.subresource,
                namespace: &attributes.namespace,
                name: &attributes.name,
                field_selector: &selector,
                ..blank
            },
            (None, Some(attributes)) => {
                Attributes { verb: &attributes.verb, path: &attributes.path, ..blank }
            }
            (None, None) => blank,
        };
        let decision = self.access.decide(&request);
        SubjectAccessReviewStatus {
            allowed: decision.is_allowed(),
            denied: matches!(decision, Decision::Deny(_)),
            reason: decision.reason().to_string(),
            ..SubjectAccessReviewStatus::default()
        }
    }

    fn rules_review(&self, who: &UserInfo, review: &mut SelfSubjectRulesReview) -> Result<(), ApiError> {
        let namespace = &review.spec.namespace;
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let user = User { name: &who.name, groups: &who.groups };
        let (rules, mut errors) = self.access.with(|policy| policy.rbac.rules_for(user, namespace));
        if authz::node::identity(user).is_some() {
            errors.push("node authorizer does not support user rule resolution".into());
        }
        for rule in rules {
            if !rule.resources.is_empty() {
                review.status.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if !rule.non_resource_urls.is_empty() {
                review
                    .status
                    .non_resource_rules
                    .push(NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls });
            }
        }
        review.status.incomplete = !errors.is_empty();
        review.status.evaluation_error = errors.join(", ");
        Ok(())
    }
}

fn api_user(user: &UserInfo) -> ApiUser {
    ApiUser {
        username: user.name.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.iter().map(|(key, values)| (key.clone(), StringList(values.clone()))).collect(),
    }
}

fn check_local(review: &LocalSubjectAccessReview) -> Result<(), ApiError> {
    let asked = review.spec.resource_attributes.as_deref().map(|attributes| attributes.namespace.as_str());
    let mut errors = Errors::default();
    if asked != Some(review.metadata.namespace.as_str()) {
        let path = Path::new("spec").child("resourceAttributes").child("namespace");
        errors.invalid(&path, asked.unwrap_or_default(), "must match metadata.namespace");
    }
    if review.spec.non_resource_attributes.is_some() {
        let path = Path::new("spec").child("nonResourceAttributes");
        errors.invalid(&path, "", "disallowed on this kind of request");
    }
    if errors.is_empty() {
        return Ok(());
    }
    let gvk = LocalSubjectAccessReview::gvk();
    Err(ApiError::invalid(gvk.group, gvk.kind, "", &errors))
}

/// Exactly one of both attributes; and for others' reviews, somebody they are about.
fn check_attributes<T: Typed>(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
    named: Option<bool>,
) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    let spec = Path::new("spec");
    let place = spec.child("resourceAttributes");
    if resource.is_some() && path.is_some() {
        let text = "cannot be specified in combination with resourceAttributes";
        errors.invalid(&spec.child("nonResourceAttributes"), "", text);
    }
    if resource.is_none() && path.is_none() {
        errors.invalid(
            &place,
            "null",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
    }
    if named == Some(false) {
        errors.invalid(&spec.child("user"), "", "at least one of user or group must be specified");
    }
    if errors.is_empty() {
        return Ok(());
    }
    let gvk = T::gvk();
    Err(ApiError::invalid(gvk.group, gvk.kind, "", &errors))
}
