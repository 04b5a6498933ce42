//! The few shapes that all kinds share: durations, string matches, selectors, status, and the reading rules of protobuf
//! JSON, in which every Istio kind is written.
//!
//! The rules, kept in one place so that no kind has its own idea of them: an absent field, a `null` and the field's zero
//! value are the same thing; numbers may be written as text, enums as numbers, names as in the proto file; at most one arm
//! of a `oneof` may be set; unknown fields are skipped here (who reads documents names them). What breaks a rule is a
//! deserialisation error that says what would have been accepted. Nothing here may guess or repair.

mod crd;
mod duration;
pub(crate) mod message;
pub(crate) mod proto_json;
pub(crate) mod schema;
mod selector;
mod status;
mod string_match;
mod words;

pub(crate) use crd::{Serving, crd, keep_unknown_fields};
pub use duration::{Duration, ParseDurationError};
pub(crate) use message::{enumeration, message};
pub use selector::{PolicyTargetReference, PortSelector, WorkloadSelector};
pub use status::{AnalysisMessageBase, AnalysisMessageLevel, AnalysisMessageType, IstioCondition, IstioStatus};
pub use string_match::StringMatch;
pub use words::{GRPC_STATUSES, RETRY_ON};
