"""The only writers of detections and suppression rules."""
