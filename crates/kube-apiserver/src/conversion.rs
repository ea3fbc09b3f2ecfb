//! Asks the webhooks of custom kinds to convert objects from one version to another.
//!
//! A webhook may change what is in an object, its labels and annotations; the rest of the metadata stays.

use crate::outbound::webhook::{ClientConfig, WebhookClient};
use api::Object;
use api::errors::ApiError;
use apiextensions::definition::Conversion;
use async_trait::async_trait;
use meta::Gvk;
use registry::Converter;
use resources::Resource;
use resources::custom::Custom;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a conversion is waited for; upstream's.
const TIMEOUT: Duration = Duration::from_secs(30);
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub struct WebhookConverter {
    client: Arc<WebhookClient>,
}

impl WebhookConverter {
    pub fn new(client: Arc<WebhookClient>) -> Arc<Self> {
        Arc::new(WebhookConverter { client })
    }
}

fn failed(gvk: Gvk, why: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!(
        "conversion webhook for {}, Kind={} failed: {why}",
        gvk.api_version(),
        gvk.kind
    ))
}

#[async_trait]
impl Converter for WebhookConverter {
    async fn convert(
        &self,
        to: &'static dyn Resource,
        objects: Vec<Box<dyn Object>>,
    ) -> Result<Vec<Box<dyn Object>>, ApiError> {
        let gvk = objects.first().map_or(to.gvk(), |object| object.gvk());
        let row = to.custom().ok_or_else(|| failed(gvk, "the kind is built in"))?;
        let definition = row.definition().ok_or_else(|| failed(gvk, "the kind is not defined"))?;
        let Conversion::Webhook(webhook) = &definition.conversion else {
            return Err(failed(gvk, "the kind has no webhook"));
        };
        let client = webhook.client_config.as_deref().ok_or_else(|| failed(gvk, "it has no address"))?;
        let review_version = webhook
            .conversion_review_versions
            .iter()
            .find(|version| REVIEW_VERSIONS.contains(&version.as_str()))
            .ok_or_else(|| failed(gvk, "it takes no review that this server knows"))?;
        let trees: Vec<Value> = objects.iter().map(|object| api::codec::to_value(object.as_dyn())).collect();
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{review_version}"),
            "request": {"uid": uid, "desiredAPIVersion": to.gvk().api_version(), "objects": trees},
        });
        let answer = self.client.call(&ClientConfig::from(client), &review, TIMEOUT).await;
        let answer = answer.map_err(|error| failed(gvk, error))?;
        let converted = converted_objects(&answer, &uid, objects.len()).map_err(|why| failed(gvk, why))?;
        let mut out: Vec<Box<dyn Object>> = Vec::with_capacity(objects.len());
        for (index, (before, after)) in objects.iter().zip(converted).enumerate() {
            let object = before
                .downcast::<Custom>()
                .ok_or_else(|| "it is of another kind".to_string())
                .and_then(|before| row.converted(before, after))
                .map_err(|why| failed(gvk, format!("invalid converted object at index {index}: {why}")))?;
            out.push(Box::new(object));
        }
        Ok(out)
    }
}

/// The objects of an answer that belongs to the request and says that it succeeded.
fn converted_objects<'a>(answer: &'a Value, uid: &str, wanted: usize) -> Result<&'a [Value], String> {
    let response = answer.get("response").filter(|it| it.is_object()).ok_or("no response provided")?;
    let found = response["uid"].as_str().unwrap_or_default();
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let result = &response["result"];
    match result["status"].as_str().unwrap_or_default() {
        "Success" => {}
        "Failure" => {
            let message = result["message"].as_str().filter(|text| !text.is_empty());
            return Err(message.unwrap_or("response.result.status was 'Failure'").into());
        }
        other => return Err(format!("response.result.status was {other:?}, not 'Success'")),
    }
    let objects = response["convertedObjects"].as_array().map(Vec::as_slice).unwrap_or_default();
    if objects.len() == wanted {
        Ok(objects)
    } else {
        Err(format!("expected {wanted} converted objects, got {}", objects.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_only_whole() {
        let told = |answer: Value| converted_objects(&answer, "u", 1).map(<[Value]>::len);
        let good =
            json!({"response": {"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}]}});
        assert_eq!(told(good), Ok(1));
        assert_eq!(told(json!({})), Err("no response provided".into()));
        let other = json!({"response": {"uid": "v"}});
        assert_eq!(told(other), Err("expected response.uid=\"u\", got \"v\"".into()));
        let refused = json!({"response": {"uid": "u", "result": {"status": "Failure", "message": "no way"}}});
        assert_eq!(told(refused), Err("no way".into()));
        let few = json!({"response": {"uid": "u", "result": {"status": "Success"}}});
        assert_eq!(told(few), Err("expected 1 converted objects, got 0".into()));
    }
}
