//! What a control plane writes back about an Istio object. It is read leniently and never believed as configuration.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{enumeration, message, schema};

message! {
    /// The status that all Istio kinds share.
    pub struct IstioStatus {
        /// The current conditions, at most one of each type.
        pub conditions: Vec<IstioCondition>,
        /// What analysis found wrong with the object.
        pub validation_messages: Vec<AnalysisMessageBase>,
        /// The `metadata.generation` of which all of this speaks.
        #[schemars(schema_with = "schema::int_or_string")]
        pub observed_generation: i64,
    }
}

message! {
    /// One aspect of an object's state.
    pub struct IstioCondition {
        /// Which aspect, in CamelCase.
        pub r#type: String,
        /// `True`, `False` or `Unknown`.
        pub status: String,
        /// When the condition was last looked at.
        pub last_probe_time: Option<Time>,
        /// When the condition last took another status.
        pub last_transition_time: Option<Time>,
        /// Why it has this status, in one CamelCase word.
        pub reason: String,
        /// Why it has this status, for people.
        pub message: String,
        /// The `metadata.generation` of which the condition speaks.
        #[schemars(schema_with = "schema::int_or_string")]
        pub observed_generation: i64,
    }
}

message! {
    /// A finding of the analysis.
    pub struct AnalysisMessageBase {
        /// Which finding it is.
        pub r#type: Option<AnalysisMessageType>,
        /// How bad it is.
        pub level: AnalysisMessageLevel,
        /// Where it is explained.
        pub documentation_url: String,
    }
}

message! {
    /// Names a sort of finding.
    pub struct AnalysisMessageType {
        /// Its name for people, in CamelCase.
        pub name: String,
        /// Its stable code, such as `IST0101`.
        pub code: String,
    }
}

enumeration! {
    /// How bad a finding is.
    pub enum AnalysisMessageLevel {
        /// Not said.
        #[default]
        Unknown,
        /// The object can't do what it says.
        Error = 3,
        /// The object probably doesn't do what was meant.
        Warning = 8,
        /// Worth knowing.
        Info = 12,
    }
}
