//! OpenAPI documents of what is served.
use crate::query::Query;
use crate::respond::Body;
use resources::Resource;
pub struct OpenApi;
impl OpenApi {
    pub fn new(_: Vec<&'static dyn Resource>) -> Self {
        OpenApi
    }
    pub fn answer(&self, _: &[&str], _: &http::HeaderMap, _: &Query) -> http::Response<Body> {
        crate::filters::no_such_path()
    }
}
