//! AdmissionReview v1, as far as a webhook has to know it. Only what an answer needs is demanded of a request: it must
//! be answerable even where the object in it is nonsense.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use mesh_api::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A review: the request that came, or the response that goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Review {
    /// `admission.k8s.io/v1`, or v1beta1, which has the same form; the answer has the version of the question.
    pub api_version: String,
    /// `AdmissionReview`.
    pub kind: String,
    /// What is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// What is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
}

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Ties the answer to the question.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Namespace of the object; a pod made by a controller doesn't tell its own.
    pub namespace: String,
    /// Name of the object; empty where the apiserver will choose it.
    pub name: String,
    /// The object as it would be stored; null for a deletion.
    pub object: Value,
    /// The object as it is stored; null for a creation.
    pub old_object: Value,
    /// True where nothing will be stored.
    pub dry_run: bool,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Response {
    /// The uid of the request.
    pub uid: String,
    /// Whether the object may be stored.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// A JSON patch in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// `JSONPatch` where there is a patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<String>,
    /// Told to the user, whatever the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What is counted of it; never sent.
    #[serde(skip)]
    pub outcome: Outcome,
}

/// What an answer counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing that is counted.
    #[default]
    Uncounted,
    /// A pod got a proxy.
    Injected,
    /// A pod stays without one.
    NotInjected,
    /// An object may be stored.
    Valid(&'static Kind),
    /// An object was not looked at, or may not be stored, for a reason in Istio's words.
    Invalid(Option<&'static Kind>, &'static str),
}

/// Why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// HTTP's code for it.
    pub code: u16,
    /// For the user.
    pub message: String,
}

impl Response {
    /// The object may be stored as it is.
    pub fn allow() -> Self {
        Self { allowed: true, ..Self::default() }
    }

    /// The object may be stored after this patch.
    pub fn patched(patch: &Patch) -> Self {
        if patch.0.is_empty() {
            return Self::allow();
        }
        match serde_json::to_vec(patch) {
            Ok(patch) => Self {
                patch: Some(BASE64_STANDARD.encode(patch)),
                patch_type: Some("JSONPatch".to_owned()),
                ..Self::allow()
            },
            // Paths and values, which JSON can always hold.
            Err(error) => Self::deny(500, error.to_string()),
        }
    }

    /// The same, counted as that.
    #[must_use]
    pub fn counted(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The object may not be stored. `code` is HTTP's: 400 for a bad question, 403 for a bad object.
    pub fn deny(code: u16, message: impl Into<String>) -> Self {
        Self { status: Some(Status { code, message: message.into() }), ..Self::default() }
    }
}

impl Review {
    /// Reads a question.
    ///
    /// # Errors
    /// The answer to give instead: the text is no AdmissionReview, or there is no request in it.
    pub fn read(body: &[u8]) -> Result<Self, Box<Self>> {
        let malformed = |why: String| {
            let message = format!("not an AdmissionReview: {why}");
            // Without the uid, the apiserver would say that the answer is not to its question, and nothing of the message.
            let uid = serde_json::from_slice::<Value>(body)
                .ok()
                .and_then(|review| review.pointer("/request/uid").and_then(Value::as_str).map(str::to_owned));
            let request = uid.map(|uid| Request { uid, ..Request::default() });
            let question = Self { api_version: "admission.k8s.io/v1".to_owned(), request, ..Self::default() };
            Box::new(question.answer(Response::deny(400, message)))
        };
        let review: Self = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        if review.kind != "AdmissionReview" || !review.api_version.starts_with("admission.k8s.io/") {
            return Err(malformed(format!("its apiVersion is {:?}, its kind {:?}", review.api_version, review.kind)));
        }
        if review.request.is_none() {
            return Err(malformed("it has no request".to_owned()));
        }
        Ok(review)
    }

    /// The review that answers this one.
    #[must_use]
    pub fn answer(self, mut response: Response) -> Self {
        response.uid = self.request.map(|request| request.uid).unwrap_or_default();
        Self { kind: "AdmissionReview".to_owned(), request: None, response: Some(response), ..self }
    }
}
