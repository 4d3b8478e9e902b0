//! Signing keys in a hardware security module, by PKCS#11 (OASIS, v2.40 and later). A key is generated in the module
//! and never leaves it; it is found by its label, the key's id.

use super::HsmSettings;
use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The object identifier of P-256 (RFC 5480), in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The bytes before the point in a public key of P-256 (RFC 5480, section 2).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Modules that this process has loaded: a module is initialized once in a process.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

fn module(path: &Path) -> Result<Pkcs11, String> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = modules.get(path) {
        return Ok(known.clone());
    }
    let loaded = Pkcs11::new(path).map_err(|error| error.to_string())?;
    loaded.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(|error| error.to_string())?;
    modules.insert(path.to_owned(), loaded.clone());
    Ok(loaded)
}

/// A session on the configured token, logged in.
fn session(settings: &HsmSettings) -> Result<Session, String> {
    let module = module(&settings.module)?;
    let slots = module.get_slots_with_token().map_err(|error| error.to_string())?;
    let labelled =
        |slot: &_| module.get_token_info(*slot).is_ok_and(|token| token.label().trim_end() == settings.token);
    let slot = slots.into_iter().find(labelled).ok_or_else(|| format!("there is no token {:?}", settings.token))?;
    let session = module.open_rw_session(slot).map_err(|error| error.to_string())?;
    match session.login(UserType::User, Some(&AuthPin::new(settings.pin.reveal().into()))) {
        // A login applies to the whole process.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => Err(error.to_string()),
    }
}

/// Generates a key pair of P-256 in the module, under a label; returns its public key (SPKI, DER).
pub(super) fn generate(settings: &HsmSettings, label: &str) -> Result<Vec<u8>, String> {
    let session = session(settings)?;
    let label = Attribute::Label(label.as_bytes().to_vec());
    let public = [Attribute::Token(true), Attribute::EcParams(P256.to_vec()), Attribute::Verify(true), label.clone()];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        label,
    ];
    let made = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
    let (public, _) = made.map_err(|error| error.to_string())?;
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint]).map_err(|error| error.to_string())?;
    // An uncompressed point, in an OCTET STRING or bare: its 65 bytes end the attribute either way.
    match attributes.as_slice() {
        [Attribute::EcPoint(bytes)] => match bytes.last_chunk::<65>() {
            Some(point) if point[0] == 4 => Ok([SPKI_HEAD.as_slice(), point].concat()),
            _ => Err("the module gave no point of P-256".into()),
        },
        _ => Err("the module gave no public key".into()),
    }
}

/// A private key in the module.
pub(super) struct HsmKey {
    session: Mutex<Session>,
    key: ObjectHandle,
}

impl HsmKey {
    /// Finds a key by its label.
    pub(super) fn find(settings: &HsmSettings, label: &str) -> Result<Self, String> {
        let session = session(settings)?;
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.as_bytes().to_vec())];
        let found = session.find_objects(&wanted).map_err(|error| error.to_string())?;
        let key = found.into_iter().next().ok_or("the module has no such key")?;
        Ok(HsmKey { session: Mutex::new(session), key })
    }

    /// Signs in the form of ES256 (RFC 7518, section 3.4): r and s, 32 bytes each.
    pub(super) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, String> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = session.sign(&Mechanism::Ecdsa, self.key, digest(&SHA256, input).as_ref());
        signed.map_err(|error| error.to_string())
    }
}
