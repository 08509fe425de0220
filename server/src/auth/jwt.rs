//! Tokens that say themselves whose they are: JSON Web Tokens in the compact form (RFC 7515, 7519), as etcd signs and reads
//! them (etcd `server/auth/jwt.go`). Signatures are aws-lc-rs's; no crate of JWTs that we know has all of etcd's methods.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaEncoding, RsaKeyPair,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::pem::Pem;

/// What is signed by who tries a key.
const PROBE: &[u8] = b"whether two keys belong together";

/// A way to sign, by its name in `sign-method` and in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are RFC 7518's
pub enum Method {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Method {
    const ALL: [Method; 13] = [
        Method::HS256,
        Method::HS384,
        Method::HS512,
        Method::RS256,
        Method::RS384,
        Method::RS512,
        Method::PS256,
        Method::PS384,
        Method::PS512,
        Method::ES256,
        Method::ES384,
        Method::ES512,
        Method::EdDSA,
    ];

    /// The method of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| format!("{method:?}") == name)
    }

    fn is_hmac(self) -> bool {
        matches!(self, Method::HS256 | Method::HS384 | Method::HS512)
    }
}

/// What `--auth-token jwt,…` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// How tokens are signed.
    pub method: Method,
    /// The key that signs, in PEM; of HMAC the key itself.
    pub private_key: Option<PathBuf>,
    /// The key that verifies, in PEM. Alone: this member gives no tokens, and takes those of others.
    pub public_key: Option<PathBuf>,
    /// How long a token is good.
    pub life: Duration,
}

/// Why tokens cannot be signed or verified with these keys.
#[derive(Debug, Error)]
pub enum JwtKeyError {
    /// A file cannot be read.
    #[error("cannot read {path:?} of --auth-token: {cause}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It holds no key of that method.
    #[error("{path:?} of --auth-token holds no key for {method:?}: {why}")]
    Unfit {
        /// Which.
        path: PathBuf,
        /// The method.
        method: Method,
        /// What is wrong.
        why: &'static str,
    },
    /// There is none.
    #[error("--auth-token names no key for {0:?}: give priv-key, or pub-key to verify only")]
    Missing(Method),
    /// Private and public key are not of one pair.
    #[error("priv-key and pub-key of --auth-token do not belong together")]
    Mismatch,
}

/// A token that is not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JwtError {
    /// It is no token of that form.
    #[error("malformed")]
    Malformed,
    /// It is signed in another way.
    #[error("signed by another method")]
    Method,
    /// The signature is wrong.
    #[error("bad signature")]
    Signature,
    /// It is good no more, or not yet.
    #[error("expired, or not valid yet")]
    Time,
    /// This member has no key to sign with.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// The library failed to sign.
    #[error("signing failed")]
    Signing,
}

enum Signing {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Keys, and how long what they sign is good.
pub struct JwtKeys {
    method: Method,
    signing: Option<Signing>,
    /// `None` for HMAC, whose one key does both.
    verifying: Option<ParsedPublicKey>,
    life: Duration,
    /// Of the files' bytes, so that a secret stands here no more often than it must.
    digest: [u8; 32],
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtKeys")
            .field("method", &self.method)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    alg: &'a str,
    typ: Option<&'a str>,
}

#[derive(Serialize)]
struct OurClaims<'a> {
    username: &'a str,
    revision: u64,
    exp: u64,
}

/// Those of others may have fractions.
#[derive(Deserialize)]
struct Claims {
    username: String,
    revision: f64,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtUser {
    /// Whose it is.
    pub name: String,
    /// By which users and roles it was made.
    pub revision: u64,
    /// When it ends, unless that is beyond all time.
    pub ends: Option<SystemTime>,
}

impl JwtKeys {
    /// Reads the files.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn read(options: &JwtOptions) -> Result<Self, JwtKeyError> {
        let JwtOptions { method, life, .. } = *options;
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).map_err(|cause| JwtKeyError::Read { path: path.clone(), cause })?;
            Ok((path.clone(), bytes))
        };
        let private = options.private_key.as_ref().map(read).transpose()?;
        let public = options.public_key.as_ref().map(read).transpose()?.filter(|_| !method.is_hmac());
        let digest = digest([&private, &public]);
        let signing = private.map(|(path, bytes)| signing_key(method, &path, &bytes)).transpose()?;
        let named = public.map(|(path, bytes)| verifying_key(method, &path, &bytes)).transpose()?;
        let verifying = match (&signing, named) {
            (None, None) => return Err(JwtKeyError::Missing(method)),
            (None, named) => named,
            (Some(signing), None) => public_of(method, signing),
            (Some(signing), Some(named)) => {
                let signed = sign(signing, PROBE).map_err(|_| JwtKeyError::Mismatch)?;
                named.verify_sig(PROBE, &signed).map_err(|_| JwtKeyError::Mismatch)?;
                Some(named)
            }
        };
        Ok(Self { method, signing, verifying, life, digest })
    }

    /// Whether they are of files with the same content.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// A token of a user.
    ///
    /// # Errors
    /// [`JwtError::VerifyOnly`], [`JwtError::Signing`].
    pub fn sign(&self, user: &str, revision: u64) -> Result<String, JwtError> {
        let signing = self.signing.as_ref().ok_or(JwtError::VerifyOnly)?;
        let exp = (unix_seconds() + self.life.as_secs_f64()) as u64;
        let claims = OurClaims { username: user, revision, exp };
        let alg = format!("{:?}", self.method);
        let part = |json: Result<String, serde_json::Error>| {
            json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| JwtError::Signing)
        };
        let header = part(serde_json::to_string(&Header { alg: &alg, typ: Some("JWT") }))?;
        let signed = format!("{header}.{}", part(serde_json::to_string(&claims))?);
        let signature = sign(signing, signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn verify(&self, token: &str) -> Result<JwtUser, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed);
        let header = decode(header)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| JwtError::Malformed)?;
        // Never by what the token says of itself alone: "none" would do.
        if Method::of_name(header.alg) != Some(self.method) {
            return Err(JwtError::Method);
        }
        self.check_signature(signed.as_bytes(), &decode(signature)?)?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Malformed)?;
        let now = unix_seconds();
        if claims.exp.is_some_and(|end| end <= now) || claims.nbf.is_some_and(|start| start > now) {
            return Err(JwtError::Time);
        }
        // Beyond this a number of JSON is not exact.
        if !(0.0..9_007_199_254_740_992.0).contains(&claims.revision) {
            return Err(JwtError::Malformed);
        }
        let ends = claims.exp.and_then(|end| Duration::try_from_secs_f64(end).ok());
        let ends = ends.and_then(|end| UNIX_EPOCH.checked_add(end));
        Ok(JwtUser { name: claims.username, revision: claims.revision as u64, ends })
    }

    fn check_signature(&self, signed: &[u8], signature: &[u8]) -> Result<(), JwtError> {
        let is_good = match (&self.verifying, &self.signing) {
            (Some(key), _) => key.verify_sig(signed, signature).is_ok(),
            (None, Some(Signing::Hmac(key))) => hmac::verify(key, signed, signature).is_ok(),
            (None, _) => false,
        };
        if is_good { Ok(()) } else { Err(JwtError::Signature) }
    }
}

fn digest(files: [&Option<(PathBuf, Vec<u8>)>; 2]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for content in files.map(|file| file.as_ref().map_or(&[][..], |(_, bytes)| bytes)) {
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    digest.finalize().into()
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn sign(key: &Signing, message: &[u8]) -> Result<Vec<u8>, JwtError> {
    let random = SystemRandom::new();
    match key {
        Signing::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
        Signing::Rsa(key, encoding) => {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(*encoding, &random, message, &mut signature).map_err(|_| JwtError::Signing)?;
            Ok(signature)
        }
        Signing::Ecdsa(key) => {
            let signature = key.sign(&random, message).map_err(|_| JwtError::Signing)?;
            Ok(signature.as_ref().to_vec())
        }
        Signing::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
    }
}

fn signing_key(method: Method, path: &Path, bytes: &[u8]) -> Result<Signing, JwtKeyError> {
    let unfit = |why| JwtKeyError::Unfit { path: path.to_owned(), method, why };
    let der = || pem(bytes, &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"]);
    let no_key = || unfit("no private key in PEM");
    let hmac = |algorithm| {
        if bytes.is_empty() {
            Err(unfit("it is empty"))
        } else {
            Ok(Signing::Hmac(Box::new(hmac::Key::new(algorithm, bytes))))
        }
    };
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let der = der().ok_or_else(no_key)?;
        let key = RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der));
        key.map(|key| Signing::Rsa(key, encoding)).map_err(|_| unfit("no RSA key of 2048 to 8192 bits"))
    };
    let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
        let der = der().ok_or_else(no_key)?;
        let key = EcdsaKeyPair::from_private_key_der(algorithm, &der);
        key.map(Signing::Ecdsa).map_err(|_| unfit("no key of that curve"))
    };
    match method {
        Method::HS256 => hmac(hmac::HMAC_SHA256),
        Method::HS384 => hmac(hmac::HMAC_SHA384),
        Method::HS512 => hmac(hmac::HMAC_SHA512),
        Method::RS256 => rsa(&signature::RSA_PKCS1_SHA256),
        Method::RS384 => rsa(&signature::RSA_PKCS1_SHA384),
        Method::RS512 => rsa(&signature::RSA_PKCS1_SHA512),
        Method::PS256 => rsa(&signature::RSA_PSS_SHA256),
        Method::PS384 => rsa(&signature::RSA_PSS_SHA384),
        Method::PS512 => rsa(&signature::RSA_PSS_SHA512),
        Method::ES256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Method::ES384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Method::ES512 => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        Method::EdDSA => {
            let der = der().ok_or_else(no_key)?;
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
            key.map(Signing::Ed25519).map_err(|_| unfit("no Ed25519 key"))
        }
    }
}

fn verifying_key(method: Method, path: &Path, bytes: &[u8]) -> Result<ParsedPublicKey, JwtKeyError> {
    let unfit = |why| JwtKeyError::Unfit { path: path.to_owned(), method, why };
    let der = pem(bytes, &["PUBLIC KEY", "RSA PUBLIC KEY"]).or_else(|| public_key_of_certificate(bytes));
    let der = der.ok_or_else(|| unfit("no public key in PEM, and no certificate"))?;
    public_key(method, &der).ok_or_else(|| unfit("no key of that kind"))
}

fn public_of(method: Method, signing: &Signing) -> Option<ParsedPublicKey> {
    match signing {
        Signing::Hmac(_) => None,
        Signing::Rsa(key, _) => public_key(method, key.public_key().as_ref()),
        Signing::Ecdsa(key) => public_key(method, key.public_key().as_ref()),
        Signing::Ed25519(key) => public_key(method, key.public_key().as_ref()),
    }
}

fn public_key(method: Method, bytes: &[u8]) -> Option<ParsedPublicKey> {
    fn of(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Option<ParsedPublicKey> {
        ParsedPublicKey::new(algorithm, bytes).ok()
    }
    match method {
        Method::HS256 | Method::HS384 | Method::HS512 => None,
        Method::RS256 => of(&signature::RSA_PKCS1_2048_8192_SHA256, bytes),
        Method::RS384 => of(&signature::RSA_PKCS1_2048_8192_SHA384, bytes),
        Method::RS512 => of(&signature::RSA_PKCS1_2048_8192_SHA512, bytes),
        Method::PS256 => of(&signature::RSA_PSS_2048_8192_SHA256, bytes),
        Method::PS384 => of(&signature::RSA_PSS_2048_8192_SHA384, bytes),
        Method::PS512 => of(&signature::RSA_PSS_2048_8192_SHA512, bytes),
        Method::ES256 => of(&signature::ECDSA_P256_SHA256_FIXED, bytes),
        Method::ES384 => of(&signature::ECDSA_P384_SHA384_FIXED, bytes),
        Method::ES512 => of(&signature::ECDSA_P521_SHA512_FIXED, bytes),
        Method::EdDSA => of(&signature::ED25519, bytes),
    }
}

/// The first block of one of these kinds.
fn pem(bytes: &[u8], labels: &[&str]) -> Option<Vec<u8>> {
    let blocks = Pem::iter_from_buffer(bytes).filter_map(Result::ok);
    let mut wanted = blocks.filter(|block| labels.contains(&&block.label[..]));
    wanted.next().map(|block| block.contents)
}

fn public_key_of_certificate(bytes: &[u8]) -> Option<Vec<u8>> {
    let block = Pem::iter_from_buffer(bytes).filter_map(Result::ok).find(|block| block.label == "CERTIFICATE")?;
    let certificate = block.parse_x509().ok()?;
    Some(certificate.public_key().raw.to_vec())
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
