"""The words of the demo's captions: findings, imaging and complaints, with synonyms and abbreviations."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """Names of one finding in one region."""

    names: tuple[str, ...]
    """Interchangeable names, without article and side."""
    place: str = ""
    """Where it lies, with ``{side}`` or ``{lobe}`` to fill; empty where the name says it all."""
    article: bool = True
    """Whether "a" or "an" goes before a name (not before mass nouns and plurals)."""
    plurals: tuple[str, ...] = ()
    """Plural forms, used when the finding is denied."""


FINDINGS: dict[tuple[str, str], Terms] = {
    ("chest", "pleural effusion"): Terms(
        ("pleural effusion", "pleural effusion", "pleural fluid collection"),
        "on the {side}",
        plurals=("pleural effusions",),
    ),
    ("chest", "pneumothorax"): Terms(("pneumothorax",), "on the {side}", plurals=("pneumothoraces",)),
    ("chest", "pneumonia"): Terms(
        ("pneumonia", "pneumonia", "lobar pneumonia", "pulmonary consolidation", "airspace consolidation"),
        "in the {lobe}",
        article=False,
    ),
    ("chest", "pulmonary nodule"): Terms(
        ("pulmonary nodule", "lung nodule", "solitary pulmonary nodule"),
        "in the {lobe}",
        plurals=("pulmonary nodules", "lung nodules"),
    ),
    ("chest", "lung mass"): Terms(
        ("lung mass", "pulmonary mass", "lung tumor", "lung tumour"),
        "in the {lobe}",
        plurals=("lung masses",),
    ),
    ("chest", "cardiomegaly"): Terms(
        ("cardiomegaly", "cardiac enlargement", "enlargement of the heart"), article=False
    ),
    ("head", "brain tumour"): Terms(
        ("brain tumor", "brain tumour", "glioma", "brain neoplasm", "intracranial mass"),
        "in the {side} cerebral hemisphere",
        plurals=("brain tumors", "brain tumours"),
    ),
    ("head", "intracerebral haemorrhage"): Terms(
        (
            "intracerebral hemorrhage",
            "intracerebral haemorrhage",
            "cerebral hemorrhage",
            "intracranial hemorrhage",
            "intracranial haemorrhage",
        ),
        "in the {side} cerebral hemisphere",
    ),
    ("head", "subdural haematoma"): Terms(
        ("subdural hematoma", "subdural haematoma", "subdural hemorrhage"),
        "on the {side}",
        plurals=("subdural hematomas",),
    ),
    ("head", "cerebral infarction"): Terms(
        (
            "cerebral infarction",
            "cerebral infarct",
            "ischemic stroke",
            "ischaemic stroke",
            "acute stroke",
            "brain infarct",
        ),
        "in the {side} cerebral hemisphere",
        plurals=("cerebral infarcts",),
    ),
    ("head", "hydrocephalus"): Terms(("hydrocephalus", "hydrocephalus", "ventriculomegaly"), article=False),
    ("abdomen", "liver mass"): Terms(
        ("liver mass", "hepatic mass", "liver lesion", "focal liver lesion", "liver tumor"),
        plurals=("liver masses", "focal liver lesions"),
    ),
    ("abdomen", "hepatic cyst"): Terms(
        ("hepatic cyst", "liver cyst", "simple cyst of the liver"), plurals=("hepatic cysts", "liver cysts")
    ),
    ("abdomen", "renal cyst"): Terms(
        ("renal cyst", "kidney cyst", "simple renal cyst"), "of the {side} kidney", plurals=("renal cysts",)
    ),
    ("abdomen", "kidney stone"): Terms(
        ("kidney stone", "renal stone", "renal calculus"),
        "in the {side} kidney",
        plurals=("kidney stones", "renal calculi"),
    ),
    ("abdomen", "hydronephrosis"): Terms(
        ("hydronephrosis", "hydronephrosis", "dilatation of the renal pelvis"),
        "of the {side} kidney",
        article=False,
    ),
    ("abdomen", "ascites"): Terms(("ascites", "ascites", "peritoneal fluid"), article=False),
    ("abdomen", "gallstones"): Terms(("gallstones", "cholelithiasis", "gallbladder stones"), article=False),
    ("abdomen", "splenomegaly"): Terms(("splenomegaly", "enlargement of the spleen"), article=False),
    ("abdomen", "bowel obstruction"): Terms(
        ("bowel obstruction", "small bowel obstruction", "intestinal obstruction"), article=False
    ),
    ("spine", "fracture"): Terms(
        ("compression fracture", "vertebral compression fracture", "vertebral fracture", "wedge fracture"),
        "of the lumbar spine",
        plurals=("vertebral fractures",),
    ),
    ("spine", "disc herniation"): Terms(
        ("disc herniation", "herniated disc", "disk herniation", "intervertebral disc prolapse"),
        "of the lumbar spine",
        plurals=("herniated discs",),
    ),
    ("pelvis", "fracture"): Terms(
        ("femoral neck fracture", "hip fracture", "fracture"),
        "of the {side} hip",
        plurals=("fractures", "hip fractures"),
    ),
    ("pelvis", "osteoarthritis"): Terms(
        ("osteoarthritis", "OA", "degenerative joint disease"), "of the {side} hip", article=False
    ),
    ("knee", "fracture"): Terms(
        ("tibial fracture", "proximal tibial fracture", "fracture"),
        "of the {side} knee",
        plurals=("fractures",),
    ),
    ("knee", "joint effusion"): Terms(
        ("joint effusion", "knee effusion", "knee joint effusion"),
        "of the {side} knee",
        plurals=("joint effusions",),
    ),
    ("knee", "osteoarthritis"): Terms(
        ("osteoarthritis", "OA", "degenerative joint disease"), "of the {side} knee", article=False
    ),
    ("hand", "fracture"): Terms(
        ("metacarpal fracture", "fracture of the metacarpal bone", "fracture"),
        "of the {side} hand",
        plurals=("fractures",),
    ),
    ("hand", "osteoarthritis"): Terms(
        ("osteoarthritis", "OA", "degenerative joint disease"), "of the {side} hand", article=False
    ),
    ("breast", "breast mass"): Terms(
        ("breast mass", "breast cancer", "breast carcinoma", "breast tumor"),
        "of the {side} breast",
        plurals=("breast masses",),
    ),
    ("breast", "microcalcifications"): Terms(
        ("microcalcifications", "breast calcifications"), "of the {side} breast", article=False
    ),
}

RELATED: dict[str, tuple[str, ...]] = {
    "subdural haematoma": ("intracerebral haemorrhage",),
    "intracerebral haemorrhage": ("subdural haematoma",),
    "hepatic cyst": ("liver mass",),
    "pulmonary nodule": ("lung mass",),
    "lung mass": ("pulmonary nodule",),
}
"""Findings that no caption denies beside the first: a name of theirs covers both (a cyst is a lesion)."""

BODY: dict[
    str, tuple[tuple[str, ...], tuple[str, ...]]
] = {  # (noun after "of the", adjective or noun before an imaging word)
    "chest": (("chest", "chest", "thorax"), ("chest", "thoracic")),
    "head": (("brain", "head"), ("brain", "head", "cranial")),
    "abdomen": (("abdomen", "abdomen", "upper abdomen"), ("abdominal",)),
    "spine": (("lumbar spine", "spine"), ("lumbar spine", "spinal")),
    "pelvis": (("pelvis",), ("pelvic", "pelvis")),
    "knee": (("{side} knee",), ("{side} knee",)),
    "hand": (("{side} hand",), ("{side} hand",)),
    "breast": (("{side} breast",), ("{side} breast",)),
}

IMAGING: dict[str, tuple[str, ...]] = {
    "x-ray": ("radiograph", "X-ray", "x-ray", "plain film", "plain radiograph"),
    "ct": ("CT", "CT", "CT scan", "CT image", "computed tomography", "computed tomography (CT)"),
    "mri": (
        "MRI",
        "MRI",
        "MR image",
        "MR imaging",
        "magnetic resonance imaging",
        "magnetic resonance imaging (MRI)",
    ),
    "ultrasound": ("ultrasound", "ultrasound", "ultrasonography", "sonogram", "ultrasound scan", "US"),
    "mammography": ("mammogram", "mammogram", "mammography"),
}

VIEWS = {  # words before the imaging word, by modality and view
    ("x-ray", "frontal"): ("", "", "frontal", "anteroposterior", "AP"),
    ("x-ray", "lateral"): ("lateral", "lateral", ""),
    ("ct", "soft"): ("", "axial", "axial contrast-enhanced", "contrast-enhanced"),
    ("ct", "lung"): ("", "axial", "high-resolution", "lung-window axial"),
    ("ct", "axial"): ("", "axial", "transverse", "axial"),
    ("mri", "t1"): ("T1-weighted", "axial T1-weighted", ""),
    ("mri", "t2"): ("T2-weighted", "axial T2-weighted", ""),
    ("mri", "pd"): ("sagittal fat-suppressed proton density-weighted", "sagittal", "proton density-weighted"),
    ("mri", "t1c"): (
        "gadolinium-enhanced T1-weighted",
        "contrast-enhanced T1-weighted",
        "postcontrast axial T1-weighted",
    ),
    ("mri", "flair"): ("FLAIR", "axial FLAIR", "fluid-attenuated inversion recovery"),
    ("mri", "dwi"): ("diffusion-weighted", "axial diffusion-weighted", "DWI"),
    ("ultrasound", "liver"): ("", "", "transverse"),
    ("ultrasound", "kidney"): ("", "", "longitudinal"),
    ("mammography", "oblique"): ("mediolateral oblique", "", "MLO"),
    ("mammography", "craniocaudal"): ("craniocaudal", "", "CC"),
}

COMPLAINTS = {
    "chest": ("cough", "dyspnea", "shortness of breath", "chest pain", "fever"),
    "head": ("headache", "seizures", "vomiting", "confusion"),
    "abdomen": ("abdominal pain", "nausea", "abdominal pain", "weight loss"),
    "spine": ("low back pain", "back pain"),
    "pelvis": ("hip pain", "a fall"),
    "knee": ("knee pain", "trauma", "swelling"),
    "hand": ("hand pain", "trauma", "swelling"),
    "breast": ("a palpable lump", "breast pain"),
}

EMPTY = (
    "Figure {n}{letter}. Follow-up at {months} months.",
    "Figure {n}. Same view as before, {months} months later.",
    "See text for details.",
    "Panel {letter}: course after {months} months.",
    "Case {n}, second visit.",
    "({letter}) Later in the course.",
)
"""Captions without any medical concept, so that images without knowledge exist."""
