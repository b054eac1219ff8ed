//! What the answer to a token request means.

use super::sender::NoToken;
use super::{Exchanged, TokenError};
use crate::external::CallFailure;
use crate::plugin::{Secret, Token};
use oauth2::basic::{BasicErrorResponseType, BasicTokenResponse};
use oauth2::{RequestTokenError, TokenResponse};

/// What the crate gives.
type Outcome = Result<BasicTokenResponse, oauth2::basic::BasicRequestTokenError<NoToken>>;

/// The token, or what the refusal of what was exchanged means.
pub(super) fn token(outcome: Outcome, exchanged: Exchanged) -> Result<Token, TokenError> {
    let error = match outcome {
        Ok(token) => {
            return Ok(Token {
                access_token: Secret::from(token.access_token().secret().clone()),
                refresh_token: token.refresh_token().map(|token| Secret::from(token.secret().clone())),
                expires_in: token.expires_in(),
            });
        }
        Err(error) => error,
    };
    let response = match error {
        RequestTokenError::ServerResponse(response) => response,
        RequestTokenError::Request(NoToken::Failed(failure)) => return Err(failed(failure)),
        RequestTokenError::Request(NoToken::Unusable(message)) => {
            return Err(TokenError::Failed { message, retry_after: None });
        }
        // The answers are written above; their content is not for people.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            return Err(TokenError::Failed { message: "the answer holds no token".to_owned(), retry_after: None });
        }
    };
    let message = response.error_description().cloned().unwrap_or_else(|| response.error().to_string());
    Err(match (response.error(), exchanged) {
        (BasicErrorResponseType::InvalidClient, _) => TokenError::ClientRefused(message),
        (BasicErrorResponseType::UnauthorizedClient, Exchanged::Code | Exchanged::Nothing) => {
            TokenError::ClientRefused(message)
        }
        (BasicErrorResponseType::InvalidGrant, _) => TokenError::GrantRefused(message),
        // What the client was allowed once and is not any more is the refresh token's end: Gitea says so of one that
        // was used before.
        (BasicErrorResponseType::UnauthorizedClient, Exchanged::RefreshToken) => TokenError::GrantRefused(message),
        // Errors that no RFC knows, such as `bad_refresh_token`.
        (BasicErrorResponseType::Extension(error), Exchanged::Code | Exchanged::RefreshToken)
            if error.contains("token") || error.contains("grant") || error.contains("code") =>
        {
            TokenError::GrantRefused(message)
        }
        _ => TokenError::Failed { message, retry_after: None },
    })
}

/// What it means for a token that a request has failed.
pub(super) fn failed(failure: CallFailure) -> TokenError {
    match &failure {
        CallFailure::Forbidden(why) => TokenError::Forbidden(why.clone()),
        CallFailure::Status { status: 401, .. } => TokenError::ClientRefused(failure.to_string()),
        _ => TokenError::Failed { message: failure.to_string(), retry_after: failure.retry_after() },
    }
}
