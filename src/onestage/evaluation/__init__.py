"""The judge: from detections and annotations to numbers; numpy only, never torch."""
