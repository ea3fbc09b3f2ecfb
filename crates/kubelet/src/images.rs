//! Images: whether to pull by policy, with which credentials, and what is said of it.

use crate::{Context, events};
use api::core::v1::{Container, Pod};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use container_runtime::Error;
use container_runtime::cri::messages::*;
use pods::Failure;
use std::time::Instant;

/// What is known of an image in the runtime.
pub struct Known {
    pub id: String,
    pub uid: Option<i64>,
    pub username: String,
    pub size: u64,
    /// With tags, then with digests.
    pub names: Vec<String>,
}

pub async fn find(ctx: &Context, image: &str) -> Result<Option<Known>, Error> {
    let spec = ImageSpec { image: image.into(), ..Default::default() };
    let answer = ctx.runtime.image_status(ImageStatusRequest { image: Some(spec), verbose: false }).await?;
    Ok(answer.image.map(|image| Known {
        id: image.id,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        size: image.size,
        names: image.repo_tags.into_iter().chain(image.repo_digests).collect(),
    }))
}

/// Makes sure of a container's image by its policy; gives the image's id.
pub async fn ensure(ctx: &Context, pod: &Pod, container: &Container) -> Result<String, Failure> {
    let image = with_tag(&container.image)?;
    let say = |warning: bool, reason: &str, message: &str| {
        events::record(ctx, pod, Some(&container.name), warning, reason, message);
    };
    let policy = match container.image_pull_policy.as_str() {
        "" if image.ends_with(":latest") => "Always",
        "" => "IfNotPresent",
        policy => policy,
    };
    let known = find(ctx, &image).await.map_err(|error| {
        let message = format!("Failed to inspect image {:?}: {error}", container.image);
        say(true, "InspectFailed", &message);
        Failure::of("ImageInspectError", message)
    })?;
    if let Some(known) = known
        && policy != "Always"
    {
        say(
            false,
            "Pulled",
            &format!(
                "Container image {:?} already present on machine and can be accessed by the pod",
                container.image
            ),
        );
        return Ok(known.id);
    }
    if policy == "Never" {
        let message =
            format!("Container image {:?} is not present with pull policy of Never", container.image);
        return Err(Failure::of("ErrImageNeverPull", message));
    }
    say(false, "Pulling", &format!("Pulling image {:?}", container.image));
    pull(ctx, pod, container, &image, &say).await
}

async fn pull(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    image: &str,
    say: &(dyn Fn(bool, &str, &str) + Sync),
) -> Result<String, Failure> {
    let asked = Instant::now();
    // A queue shows in the event's two times. It is never closed.
    let _turn = ctx.pulls.acquire().await;
    let began = Instant::now();
    let spec = ImageSpec { image: image.into(), ..Default::default() };
    let mut tries = credentials(ctx, pod, image).await;
    // Without credentials last: a public image is no secret.
    tries.push(None);
    let mut last = None;
    for auth in tries {
        let request = PullImageRequest { image: Some(spec.clone()), auth, sandbox_config: None };
        match ctx.runtime.pull_image(request).await {
            Ok(answer) => {
                let size = find(ctx, image).await.ok().flatten().map_or(0, |known| known.size);
                let message = format!(
                    "Successfully pulled image {:?} in {} ({} including waiting). Image size: {size} bytes.",
                    container.image,
                    text(began.elapsed()),
                    text(asked.elapsed()),
                );
                say(false, "Pulled", &message);
                ctx.node_images_changed();
                return Ok(answer.image_ref);
            }
            Err(error) => last = Some(error),
        }
    }
    let words = last.map(|error| error.to_string()).unwrap_or_default();
    Err(Failure::of("ErrImagePull", words))
}

fn text(elapsed: std::time::Duration) -> String {
    let nanos = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000;
    meta::Duration { nanos }.to_string()
}

/// The image with `:latest` where it has neither tag nor digest.
pub fn with_tag(image: &str) -> Result<String, Failure> {
    let bad = image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control());
    let repository = image.split('@').next().unwrap_or_default();
    if bad
        || repository
            .split(':')
            .next()
            .unwrap_or_default()
            .chars()
            .any(|c| c.is_ascii_uppercase() && !repository.contains('.'))
    {
        let message = format!(
            "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
        );
        return Err(Failure::of("InvalidImageName", message));
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    Ok(if last.contains(':') || last.contains('@') { image.to_string() } else { format!("{image}:latest") })
}

/// The registry of an image; Docker's own where none is named.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// What the pod's pull secrets offer for the image's registry.
async fn credentials(ctx: &Context, pod: &Pod, image: &str) -> Vec<Option<AuthConfig>> {
    let mut found = vec![];
    let mut missing = vec![];
    for reference in &pod.spec.image_pull_secrets {
        let secret = ctx.references.secret(&pod.metadata.namespace, &reference.name).await.ok().flatten();
        let Some(secret) = secret else {
            missing.push(reference.name.clone());
            continue;
        };
        let (bytes, nested) = match secret.r#type.as_str() {
            "kubernetes.io/dockerconfigjson" => (secret.data.get(".dockerconfigjson"), true),
            "kubernetes.io/dockercfg" => (secret.data.get(".dockercfg"), false),
            _ => (None, false),
        };
        let Some(value) = bytes.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok())
        else {
            continue;
        };
        let auths = if nested { &value["auths"] } else { &value };
        for (server, entry) in auths.as_object().into_iter().flatten() {
            if matches(server, image) {
                found.push(Some(auth_config(entry)));
            }
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        events::record(ctx, pod, None, true, "FailedToRetrieveImagePullSecret", &message);
    }
    found
}

/// Whether credentials for `server` (`https://host:port/path`, `*.example.com`) serve for an image.
fn matches(server: &str, image: &str) -> bool {
    let server = server.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = server.split_once('/').unwrap_or((server, ""));
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let registry = registry(image);
    let parts_match = |pattern: &str, name: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), name.split('.').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| *a == "*" || a == b)
    };
    let path = path.trim_matches('/');
    let path_matches = matches!(path, "" | "v1" | "v2")
        || image
            .split_once('/')
            .is_some_and(|(_, rest)| rest == path || rest.starts_with(&format!("{path}/")));
    parts_match(host, registry) && path_matches
}

/// No server's address goes along: containerd reads it as a URL and refuses the credentials where a secret
/// names a bare host, and the server was matched already.
fn auth_config(entry: &serde_json::Value) -> AuthConfig {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_string();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..Default::default()
    };
    if auth.username.is_empty()
        && let Ok(bytes) = STANDARD.decode(text("auth"))
        && let Some((user, password)) = String::from_utf8_lossy(&bytes).split_once(':')
    {
        auth.username = user.into();
        auth.password = password.trim_end_matches('\0').into();
    }
    auth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_registry_only() {
        for (server, image, expected) in [
            ("https://index.docker.io/v1/", "nginx:1", true),
            ("localhost:5000", "localhost:5000/a:1", true),
            ("*.example.com", "eu.example.com/a", true),
            ("example.com/team", "example.com/team/a", true),
            ("example.com/team", "example.com/teams/a", false),
            ("example.com", "evil.com/example.com/a", false),
        ] {
            assert_eq!(matches(server, image), expected, "{server} {image}");
        }
    }

    #[test]
    fn names_get_their_tag() {
        assert_eq!(with_tag("a/b").ok().as_deref(), Some("a/b:latest"));
        assert_eq!(with_tag("localhost:5000/b").ok().as_deref(), Some("localhost:5000/b:latest"));
        assert!(with_tag("a b").is_err());
    }
}
