//! The way to Vault, for the signer of mesh-ca: plain HTTP to a Vault Agent beside us, which speaks TLS and renews the token.

use std::time::Duration;

use hyper::Request;
use mesh_ca::signer::Later;
use mesh_ca::signer::vault::Http;

use crate::http::send;

/// Vault signs within milliseconds, or has a problem.
const PATIENCE: Duration = Duration::from_secs(10);

/// Posts to a Vault at a URL such as `http://127.0.0.1:8200`.
#[derive(Clone, Debug)]
pub struct Agent(pub String);

impl Http for Agent {
    fn post<'a>(&'a self, path: &'a str, token: &'a str, body: String) -> Later<'a, Result<(u16, String), String>> {
        Box::pin(async move {
            let request = Request::post(format!("{}{path}", self.0));
            let request = request.header("x-vault-token", token).header("content-type", "application/json");
            let answer = tokio::time::timeout(PATIENCE, send(request, body.into())).await;
            let (status, body) = answer.map_err(|_| format!("{} does not answer", self.0))??;
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        })
    }
}

#[cfg(test)]
mod tests;
