//! Where a webhook is called: a URL or a service, for admission and for conversion alike.

use meta::field::{Errors, Path};
use meta::validation;

pub const PORT: i32 = 443;
const FORM: &str = "; desired format: https://host[/path]";

/// A service to call.
pub struct Service<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: Option<&'a str>,
    pub port: i32,
}

/// Exactly one of the two; `path` is that of the client's configuration.
pub fn validate(url: Option<&str>, service: Option<&Service<'_>>, path: &Path, errors: &mut Errors) {
    match (url, service) {
        (Some(url), None) => validate_url(url, &path.child("url"), errors),
        (None, Some(service)) => validate_service(service, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn validate_url(url: &str, path: &Path, errors: &mut Errors) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    if scheme != "https" {
        errors.invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        errors.invalid(path, host, format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &Service<'_>, path: &Path, errors: &mut Errors) {
    if service.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if service.namespace.is_empty() {
        errors.required(&path.child("namespace"), "");
    }
    let faults = validation::port_number(service.port.into());
    if !faults.is_empty() {
        let detail = format!("port is not valid: {}", faults.join(", "));
        errors.invalid(&path.child("port"), service.port, detail);
    }
    let Some(url_path) = service.path.filter(|it| !it.is_empty() && *it != "/") else { return };
    let path = path.child("path");
    if url_path == "//" {
        return errors.invalid(&path, url_path, "segment[0] may not be empty");
    }
    if !url_path.starts_with('/') {
        errors.invalid(&path, url_path, "must start with a '/'");
    }
    let rest = url_path.strip_prefix('/').unwrap_or(url_path);
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, url_path, format!("segment[{index}] may not be empty"));
            continue;
        }
        for fault in validation::dns1123_subdomain(step) {
            errors.invalid(&path, url_path, format!("segment[{index}]: {fault}"));
        }
    }
}
